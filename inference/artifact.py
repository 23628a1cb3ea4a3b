"""The files of a model folder: named, read and checked here; training writes them through here too."""

from __future__ import annotations

import ctypes
import hashlib
import json
import logging
import os
import shutil
import tempfile
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from inference.errors import ArtifactError
from inference.machine import CPUINFO, multiplies_int8
from inference.reference import Reference

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

FORMAT_VERSION = 1

MANIFEST = "model.json"
TOKENIZER = "tokenizer.json"
GRAPHS = {"fp32": "model.onnx", "int8": "model.int8.onnx"}  # precision: file
CHECKPOINT = "checkpoint"
REPORT = "report.html"
CARD = "README.md"

ProblemType = Literal["single_label", "multi_label"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Manifest:
    """What model.json says of a model. Everything an answer depends on is part of `version`."""

    name: str
    version: str  # content hash of all that decides an answer: see `content_version`
    created: str  # ISO 8601, UTC
    base_model: str
    labels: tuple[str, ...]  # in the order of the graph's logits
    problem_type: ProblemType
    max_tokens: int  # special tokens included; longer texts are cut
    temperature: float  # logits are divided by it before softmax or sigmoid
    thresholds: tuple[float, ...] | None  # probability from which a label is given, one a label; None: the best one is
    precisions: tuple[str, ...]  # offered; each has its graph in the folder
    default_precision: str  # the fastest of them where the model was exported
    sha256: dict[str, str]  # of every other file in the folder, by relative path
    metrics: dict[str, Any] = field(default_factory=dict)
    gates: dict[str, Any] = field(default_factory=dict)
    format_version: int = FORMAT_VERSION


@dataclass(frozen=True)
class Artifact:
    """A model folder whose manifest was read and whose files are known to be there."""

    folder: Path
    manifest: Manifest

    @classmethod
    def open(cls, folder: str | Path) -> Artifact:
        """
        Read and check model.json.

        Raises:
            ArtifactError: the folder or its manifest is missing, damaged, of another format, or contradicts itself.
        """
        folder = Path(folder)
        if not folder.is_dir():
            raise ArtifactError(
                f"{folder}: there is no such model folder; make one with `bertrand train DATA --out {folder}`"
            )
        # A link such as models/current may be switched at any time: what was opened stays one version.
        folder = folder.resolve()
        path = folder / MANIFEST
        try:
            raw = json.loads(path.read_bytes())
        except FileNotFoundError:
            raise ArtifactError(f"{folder}: {MANIFEST} is missing, so this is not a model folder") from None
        except (ValueError, RecursionError) as error:
            raise ArtifactError(
                f"{path}: not valid JSON ({error}); restore the file or export the model again"
            ) from error
        except OSError as error:
            raise ArtifactError(f"{path}: cannot be read ({error.strerror})") from error
        try:
            return cls(folder, _manifest(path, raw))
        except (TypeError, ValueError, KeyError, AttributeError) as error:
            raise ArtifactError(f"{path}: a field is of the wrong kind ({error}); export the model again") from error

    def file(self, name: str) -> Path:
        """
        Return the path of one file after comparing its content with the manifest.

        Raises:
            ArtifactError: the file is not part of this model, is missing, or differs from what was written.
        """
        expected = self.manifest.sha256.get(name)
        if expected is None:
            raise ArtifactError(
                f"{self.folder}: {MANIFEST} lists no {name}; export the model again with `bertrand export`"
            )
        path = self.folder / name
        try:
            found = sha256(path)
        except OSError as error:
            raise ArtifactError(
                f"{path}: cannot be read ({error.strerror}); {MANIFEST} lists it: restore it or export the model again"
            ) from error
        if found != expected:
            raise ArtifactError(
                f"{path}: altered since it was exported (sha256 {found[:12]}, {MANIFEST} says {expected[:12]}); "
                "restore it or export the model again"
            )
        return path

    def precision(self, wanted: str, *, cpuinfo: Path = CPUINFO) -> str:
        """
        Return the precision to use on this machine; every process of the same machine gets the same answer.

        Args:
            wanted: `fp32`, `int8`, or `auto`: the default of the folder, but int8 only where the CPU multiplies it.
            cpuinfo: Where the CPU says what it can do.
        """
        if wanted == "auto":
            default = self.manifest.default_precision
            return default if default != "int8" or multiplies_int8(cpuinfo) else "fp32"
        if wanted == "int8" and wanted in self.manifest.precisions and not multiplies_int8(cpuinfo):
            _log.warning(
                "%s: int8 on a CPU without 8-bit dot products is slow, and its answers may differ from those that were "
                "proved; fp32 is the better choice here",
                self.folder,
            )
        return wanted

    def graph(self, precision: str) -> Path:
        """Return the checked path of the ONNX graph of one precision."""
        if precision not in self.manifest.precisions:
            offered = ", ".join(self.manifest.precisions)
            raise ArtifactError(f"{self.folder}: offers {offered}, not {precision}")
        return self.file(GRAPHS[precision])

    def check_all(self) -> None:
        """Check every file the manifest lists, those that serving does not read included."""
        for name in self.manifest.sha256:
            self.file(name)


def content_version(manifest: Manifest) -> str:
    """
    Return the version id: 12 hex digits over everything that decides an answer.

    Reports, metrics and dates are left out, so that the same training gives the same version.
    """
    decisive = {
        "format_version": manifest.format_version,
        "labels": manifest.labels,
        "problem_type": manifest.problem_type,
        "max_tokens": manifest.max_tokens,
        "temperature": manifest.temperature,
        "thresholds": manifest.thresholds,
        "sha256": {name: manifest.sha256.get(name) for name in (TOKENIZER, *(GRAPHS[p] for p in manifest.precisions))},
    }
    return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()[:12]


def write_manifest(folder: Path, **values: Any) -> Manifest:
    """
    Hash every file below `folder`, add version and hashes to `values`, and write model.json.

    Args:
        folder: Holds all the other files of the model, complete.
        values: The fields of `Manifest` without `version` and `sha256`.
    """
    hashes = {
        path.relative_to(folder).as_posix(): sha256(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path != folder / MANIFEST
    }
    draft = Manifest(version="", sha256=hashes, **values)
    manifest = Manifest(version=content_version(draft), sha256=hashes, **values)
    (folder / MANIFEST).write_text(json.dumps(asdict(manifest), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return manifest


@contextmanager
def staged(target: Path, *, mark: str = MANIFEST, kind: str = "model") -> Iterator[Path]:
    """
    Give a private folder that becomes `target` when the block ends well, and vanishes when it does not.

    A reader of `target` sees the old folder or the new one, never half of either.

    Args:
        target: What the folder is to be called.
        mark: The file by which a folder of this kind is known.
        kind: What such a folder is, in words.

    Raises:
        ArtifactError: `target` exists and is something other than a folder of this kind.
    """
    check_replaceable(target, mark=mark, kind=kind)
    target.parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(target)
    staging = Path(tempfile.mkdtemp(prefix=f".{target.name}.partial-{os.getpid()}-", dir=target.parent))
    try:
        yield staging
        staging.chmod(0o755)  # mkdtemp made it private; a service often runs as another user
        _flush(staging.rglob("*"))
        if target.exists():
            _exchange(staging, target)
        else:
            staging.rename(target)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def check_replaceable(target: Path, *, mark: str = MANIFEST, kind: str = "model") -> None:
    """
    Raise ArtifactError unless `target` is free, an empty folder, or a folder of the kind that has the file `mark`.

    Call it before hours of work go into what would then have nowhere to go.
    """
    if target.is_symlink() or (target.exists() and not target.is_dir()):
        raise ArtifactError(f"{target}: exists and is not a folder; name another --out")
    if target.is_dir() and any(target.iterdir()) and not (target / mark).is_file():
        raise ArtifactError(f"{target}: holds something that is not a {kind} (no {mark}); name another --out")


def sha256(path: Path) -> str:
    """Return the hex SHA-256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _manifest(path: Path, raw: Any) -> Manifest:
    if not isinstance(raw, dict) or "format_version" not in raw:
        raise ArtifactError(f"{path}: has no format_version, so it is not a model's manifest")
    if raw["format_version"] != FORMAT_VERSION:
        raise ArtifactError(
            f"{path}: format version {raw['format_version']!r}, this Bertrand reads {FORMAT_VERSION}; "
            "export the model again with `bertrand export`"
        )
    known = {f.name for f in fields(Manifest)}
    if missing := sorted(known - raw.keys()):
        raise ArtifactError(f"{path}: lacks {', '.join(missing)}; export the model again")
    lists = {name: tuple(raw[name]) for name in ("labels", "precisions")}
    thresholds = None if raw["thresholds"] is None else tuple(raw["thresholds"])
    manifest = Manifest(**{name: raw[name] for name in known} | lists | {"thresholds": thresholds})
    if not manifest.labels or len(set(manifest.labels)) != len(manifest.labels):
        raise ArtifactError(f"{path}: labels must be distinct and at least one, found {list(manifest.labels)}")
    if thresholds is not None and len(thresholds) != len(manifest.labels):
        raise ArtifactError(f"{path}: {len(thresholds)} thresholds for {len(manifest.labels)} labels")
    unknown = [p for p in manifest.precisions if p not in GRAPHS]
    if unknown or manifest.default_precision not in manifest.precisions:
        raise ArtifactError(
            f"{path}: precisions {list(manifest.precisions)} with default {manifest.default_precision!r}; "
            f"known are {', '.join(GRAPHS)}, and the default must be offered"
        )
    Reference.of(manifest.metrics)  # what is read of them must be of the right kind
    if content_version(manifest) != manifest.version:
        raise ArtifactError(
            f"{path}: altered since it was exported (its content does not hash to {manifest.version!r})"
        )
    return manifest


def _remove_abandoned(target: Path) -> None:
    """Remove staging folders whose process was killed before it could."""
    for folder in target.parent.glob(f".{target.name}.partial-*"):
        pid = folder.name.rpartition("partial-")[2].partition("-")[0]
        if pid.isdigit() and not Path(f"/proc/{pid}").exists():
            shutil.rmtree(folder, ignore_errors=True)


def _flush(paths: Iterable[Path]) -> None:
    """Have every file on disk before its folder gets its name, so that a power cut leaves no empty graph."""
    for path in paths:
        if path.is_file():
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)


def _exchange(one: Path, other: Path) -> None:
    """Swap two folders in one step (renameat2(2), RENAME_EXCHANGE); where the file system cannot, in two."""
    at_fdcwd, rename_exchange = -100, 2
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.renameat2(at_fdcwd, os.fsencode(one), at_fdcwd, os.fsencode(other), rename_exchange) == 0:
        return
    aside = other.with_name(f".{other.name}.replaced-{os.getpid()}")
    try:
        other.rename(aside)
    except FileNotFoundError:  # removed since we looked
        one.rename(other)
        return
    try:
        one.rename(other)
    except BaseException:
        aside.rename(other)
        raise
    aside.rename(one)
