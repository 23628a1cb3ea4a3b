"""What a study examines: a base model, what was fine-tuned from it, and a twin that learnt nothing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inference import artifact
from inference.errors import ArtifactError, InputError
from training.base import family, fetch, fingerprint_of, load_config
from training.record import read_run

if TYPE_CHECKING:
    from collections.abc import Mapping

PRETRAINED, TUNED, RANDOM = "pretrained", "fine-tuned", "random"  # what the weights that are compared are called


@dataclass(frozen=True)
class Subject:
    """A base model, and the checkpoint that was fine-tuned from it, if there is one."""

    base: str
    checkpoint: str | None
    run: Mapping[str, Any] | None = None  # the record of the fine-tuning, as train.json has it

    @classmethod
    def of(cls, model: str, *, base: str | None = None) -> Subject:
        """
        Find out what a name stands for.

        Args:
            model: A model folder, a fine-tuned checkpoint, or a base model.
            base: What it was fine-tuned from, where its train.json does not say so or says it of another place.

        Raises:
            ArtifactError: a model folder is damaged, or has no checkpoint.
            BaseModelError: there is no such model, or it is of another family.
            InputError: nothing says what the model was fine-tuned from, or `base` is named for a base model.
        """
        source = model
        if Path(model, artifact.MANIFEST).is_file():
            source = str(artifact.Artifact.open(model).folder / artifact.CHECKPOINT)
            if not Path(source).is_dir():
                raise ArtifactError(f"{model}: has no {artifact.CHECKPOINT}/ to study; export or train the model again")
        config = load_config(source)
        if not any(name.endswith("ForSequenceClassification") for name in config.architectures or []):
            if base is not None:
                raise InputError(f"{model}: is a base model itself; --base names what a classifier was fine-tuned from")
            return cls(source, None)
        run = read_run(source)
        base = base or (run["config"]["base"] if run else None)
        if base is None:
            raise InputError(
                f"{model}: has no train.json that says which base model it was fine-tuned from; name it with --base"
            )
        return cls(base, source, run)

    @property
    def start(self) -> str:
        """What the fine-tuning began with: pretrained weights, their type embeddings alone, or random ones."""
        return str(self.run["config"].get("init", "pretrained")) if self.run else "pretrained"

    def fingerprint(self) -> dict[str, str | None]:
        """Return what tells these models from any others."""
        return {
            "base": fingerprint_of(self.base),
            "checkpoint": fingerprint_of(self.checkpoint) if self.checkpoint else None,
        }


def load_encoder(source: str, *, layers: int | None = None) -> Any:
    """
    Load the encoder of a base model or checkpoint, without a head, in float32 and evaluation mode.

    Args:
        source: Hub id, local folder, or the default base.
        layers: The lowest ones that are kept; None: all.

    Raises:
        BaseModelError: it cannot be had or is of another family.
    """
    from transformers import AutoModel

    from training.base import quiet_transformers

    quiet_transformers()
    config = stock(load_config(source))
    if layers:
        config.num_hidden_layers = layers
    return fetch(AutoModel.from_pretrained, source, config=config, **_headless(config)).eval().float()


def random_twin(config: Any, *, seed: int) -> Any:
    """Make an encoder of the same shape with new weights, as training from scratch begins with."""
    import torch
    from transformers import AutoModel

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return AutoModel.from_config(config, **_headless(config)).eval().float()


def stock(config: Any) -> Any:
    """Return the configuration as Transformers has it for the family, whatever head it was for."""
    from transformers import CONFIG_MAPPING

    return CONFIG_MAPPING[family(config)].from_dict(config.to_dict())


def _headless(config: Any) -> dict[str, bool]:
    return {} if family(config) == "distilbert" else {"add_pooling_layer": False}
