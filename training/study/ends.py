"""The two ends of a fine-tuning run: the model as training began with it, and the model it became."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import transformers

from inference import artifact
from inference.errors import ArtifactError
from training.base import family, load_config, quiet_transformers
from training.checkpoint import Checkpoint
from training.data import fingerprint, read_rows, split
from training.errors import BaseModelError, DataError
from training.mean_pooling import MODELS
from training.record import read_run
from training.settings import TrainConfig
from training.train import start_model

if TYPE_CHECKING:
    from collections.abc import Sequence

    from training.data import Row

STARTS = {
    "pretrained": "pretrained weights",
    "types": "pretrained word embeddings, all else random",
    "random": "random weights",
}


@dataclass(frozen=True)
class Ends:
    """A fine-tuned model, and what it was before the first step; both in evaluation mode, in float32."""

    end: Checkpoint
    start: Any  # transformers.PreTrainedModel, of the same class as the end's
    config: TrainConfig  # of the run
    run: dict[str, Any] | None  # its record; None: the model was made elsewhere

    @classmethod
    def open(cls, model: Path, *, base: str | None = None, seed: int = 0) -> Ends:
        """
        Load a fine-tuned model, and build its start exactly as training built it.

        Args:
            model: A model folder that has its checkpoint, or the folder of a checkpoint.
            base: What it was fine-tuned from; by default what the record of its run says.
            seed: Of the start's head, where no record says.

        Raises:
            ArtifactError: `model` is neither.
            BaseModelError: it has no record and no `base` is given, the base cannot be had, or has other weights.
        """
        quiet_transformers()
        folder = model
        if (model / artifact.MANIFEST).is_file():
            folder = model / artifact.CHECKPOINT
        if not (folder / "config.json").is_file():
            where = (
                f"has no {artifact.CHECKPOINT}/" if folder != model else "is neither a model folder nor a checkpoint"
            )
            raise ArtifactError(
                f"{model}: {where}; expected what `bertrand train` makes, with the weights it was exported from, or "
                "the folder of a Transformers checkpoint"
            )
        run = read_run(folder)
        if run is None and base is None:
            raise BaseModelError(
                f"{model}: has no train.json that says what it was fine-tuned from; name the base model with --base"
            )
        end = Checkpoint.load(str(folder))
        config = _config(end, run, base, seed)
        try:
            start = start_model(config, load_config(config.base), end.labels).eval().float()
        except BaseModelError as error:
            if base is not None:
                raise
            raise BaseModelError(
                f"{model}: was fine-tuned from {config.base!r}, which cannot be had ({error}); say with --base where "
                "it is"
            ) from error
        _check_alike(model, config.base, start, end.model)
        return cls(end, start, config, run)

    @property
    def multi_label(self) -> bool:
        """Whether a row may have several labels."""
        return self.end.problem_type == "multi_label"

    def fingerprint(self) -> dict[str, str]:
        """Return what tells these two models from any others."""
        return {"start": weights_hash(self.start), "end": weights_hash(self.end.model)}

    def describe(self) -> dict[str, Any]:
        """Return, as JSON has it, what a page says of where the model came from."""
        installed = {"torch": torch.__version__, "transformers": transformers.__version__}
        run = self.run or {}
        return {
            "base": self.config.base,
            "init": self.config.init,
            "seed": self.config.seed,
            "freeze": self.config.freeze,
            "pooling": self.config.pooling,
            "head_start": self.config.head_start,
            "recorded": self.run is not None,
            "rows": run.get("final", {}).get("rows") or run.get("train_rows", {}).get("count"),
            "same_versions": (self.run or {}).get("versions") == installed,
            "layers": self.end.model.config.num_hidden_layers,
            "labels": len(self.end.labels),
            "multi_label": self.multi_label,
        }

    def learnt_rows(
        self, file: Path | None, *, text_column: str = "text", label_column: str = "label"
    ) -> tuple[list[Row], bool] | None:
        """
        Read the rows that the model learnt from.

        Args:
            file: Where they are; by default what the record of the run says, with its columns.
            text_column: Column of the sentence in `file`.
            label_column: Column of the label in `file`.

        Returns:
            The rows, and whether they are the very ones of the run; None where no file is named and the recorded one
            is not there.

        Raises:
            DataError: `file` cannot be read.
        """
        named = file or Path((self.run or {}).get("data", {}).get("file") or "")
        if not file and not named.is_file():
            return None
        rows = read_rows(
            named,
            text_column=text_column if file else self.config.text_column,
            label_column=label_column if file else self.config.label_column,
            multi_label=self.multi_label,
        )
        run = self.run or {}
        for learnt in (rows, _trainable(rows, self.config)):
            if fingerprint(learnt) == run.get("train_rows"):
                return rows if "final" in run else learnt, True
        if unknown := sorted({label for row in rows for label in row.labels} - set(self.end.labels)):
            if file is None:
                return None
            raise DataError(f"{named}: the model does not know the label {unknown[0]!r}; name the rows it learnt from")
        return rows, False


def about(model: dict[str, Any]) -> list[str]:
    """Return what a page says of a model's start, from what `Ends.describe` told."""
    name = {"pretrained": f"the weights of {model['base']}"}.get(model["init"], STARTS[model["init"]])
    texts = [
        f"The start is {name}, with the head that training drew with seed {model['seed']}: the very weights that the "
        "first step of fine-tuning changed."
        if model["recorded"]
        else f"This model has no record of its run. Its start is taken to be {name}, as it was named; the head it "
        f"began with is not known, and one drawn with seed {model['seed']} stands in for it."
    ]
    if model["recorded"] and not model["same_versions"]:
        texts.append(
            "The model was trained with another version of torch or transformers than is installed here. The base's "
            "weights are the same in every version; the random head may have been another."
        )
    if model["multi_label"]:
        texts.append("A row is right if it is given all of its labels and no other.")
    if model["head_start"] == "fitted":
        texts.append(
            "The head of this model was fitted on the base's sentence vectors before fine-tuning began; the start has "
            "it as it was before that."
        )
    return texts


def shared(rows: Sequence[Row], learnt: Sequence[Row]) -> int:
    """Return how many rows have a text that the model learnt from."""
    texts = {row.text for row in learnt}
    return sum(row.text in texts for row in rows)


def about_shared(rows: dict[str, Any]) -> list[str]:
    """Return what a page says of rows that were learnt from: `given` rows of which so many are `shared`."""
    if not rows["shared"]:
        return []
    return [
        f"Of the {rows['given']:,} rows of DATA, {rows['shared']:,} have a text that is among those learnt from: "
        "what is measured on them does not tell how well the model does on new ones."
    ]


def name_of(model: str) -> str:
    """Return what a page calls a model: the name of its folder."""
    folder = Path(model)
    return folder.parent.name if folder.name == artifact.CHECKPOINT else folder.name or str(folder)


def weights_hash(model: Any) -> str:
    """Return what tells a model's weights from any others."""
    digest = hashlib.sha256()
    for name, parameter in model.named_parameters():
        digest.update(name.encode())
        digest.update(parameter.detach().numpy().tobytes())
    return digest.hexdigest()[:16]


def _trainable(rows: list[Row], config: TrainConfig) -> list[Row]:
    """Return the rows of a file that training learns from in every epoch, the others having chosen one first."""
    return split(rows, share=config.dev_share, seed=config.seed)[0]


def _config(end: Checkpoint, run: dict[str, Any] | None, base: str | None, seed: int) -> TrainConfig:
    if run:
        known = {field.name for field in fields(TrainConfig)}
        saved = {key: value for key, value in run["config"].items() if key in known}
        return TrainConfig(**saved | ({"base": base} if base else {}))
    own = isinstance(end.model, MODELS)
    layers = end.model.config.num_hidden_layers
    return TrainConfig(
        base=base or "",
        seed=seed,
        pooling="mean" if own else "first",
        layers=layers,
        max_tokens=end.max_tokens,
        multi_label=end.problem_type == "multi_label",
        freeze="none",
    )


def _check_alike(model: Path, base: str, start: Any, end: Any) -> None:
    before = {name: tuple(parameter.shape) for name, parameter in start.named_parameters()}
    after = {name: tuple(parameter.shape) for name, parameter in end.named_parameters()}
    for name in [*before, *after]:
        if before.get(name) != after.get(name):
            raise BaseModelError(
                f"{base}: cannot be what {model} was fine-tuned from: {name} has the shape {before.get(name)} in the "
                f"one ({family(start.config)}) and {after.get(name)} in the other ({family(end.config)}); name its "
                "base with --base"
            )
