"""The models that lie side by side in one folder, and `current` among them: the link to the one that is served."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import secrets
import shutil
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from inference.artifact import GRAPHS, MANIFEST, TOKENIZER, Artifact, Manifest
from inference.classifier import Classifier
from inference.errors import ArtifactError, BertrandError, InputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

CURRENT = "current"
MODEL_FILES = (MANIFEST, TOKENIZER, *GRAPHS.values())  # a folder with none of them is something else
NO_MODELS = {CURRENT, "lost+found"}  # the latter lies at the root of a volume, and is closed to all but root

# Under hidden names, which no reader takes for a model. A killed process leaves them; the next one clears them away.
NEXT = f".{CURRENT}.next-"
REMOVED = ".removed-"
LEFTOVER = re.compile(rf"({re.escape(NEXT)}|{re.escape(REMOVED)})[0-9a-f]{{16}}")

VERSION = re.compile(r"[0-9a-f]{4,12}")  # or its beginning; fewer digits are sooner a slip than a version

MEASURED_ON = ("test", "dev", "cross-validation", "data")  # the rows whose accuracy tells most come first


class RefusedError(BertrandError):
    """A model is broken, so it was not put in the place of the one that is served."""


@dataclass(frozen=True)
class Link:
    """What `current` is."""

    state: Literal["missing", "model", "nowhere", "elsewhere", "no_link"]
    target: str | None = None  # as the link has it
    model: str | None = None  # the folder in the list that it leads to

    def __str__(self) -> str:
        if self.state == "no_link":
            return "a folder or file of its own"
        return self.target or "none"


@dataclass(frozen=True)
class Version:
    """One model folder; of a broken one, what could be read."""

    folder: str  # its name
    served: bool  # `current` leads to it
    size: int  # bytes of all files
    manifest: Manifest | None
    error: str | None  # None: its files are all there; whether they are what was written is told by `prove`

    @property
    def accuracy(self) -> tuple[str, float] | None:
        """The rows it was measured on, and the share of them that it has right."""
        metrics: Any = self.manifest.metrics if self.manifest else None
        for rows in MEASURED_ON if isinstance(metrics, dict) else ():
            figures = metrics.get(rows)
            value = figures.get("accuracy") if isinstance(figures, dict) else None
            if isinstance(value, float | int):
                return rows, float(value)
        return None


@dataclass(frozen=True)
class Switch:
    """What `use` did."""

    before: Link
    folder: str
    version: str
    changed: bool  # False: it was the current one already


class Versions:
    """
    The models in one folder. Whatever changes there changes in one step, and any number of processes may do it at once.

    Names that start with a dot are no models: training and removal keep there what is not whole.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)

    def names(self) -> list[str]:
        """
        Return the names of the model folders, broken ones included; `x-2` comes before `x-10`.

        Raises:
            InputError: there is no such folder, or it cannot be read.
        """
        try:
            entries = list(os.scandir(self.root))
        except (FileNotFoundError, NotADirectoryError):
            raise InputError(
                f"{self.root}: there is no such folder of models; name another with --models, or make a model with "
                f"`bertrand train DATA --out {self.root}/NAME-1`"
            ) from None
        except OSError as error:
            raise InputError(f"{self.root}: cannot be read ({error.strerror})") from error
        return sorted((entry.name for entry in entries if _is_model(entry)), key=_natural)

    def all(self) -> list[Version]:
        """Return every model, in the order of `names`; files are looked for, not read."""
        served = _stat(self.root / CURRENT)
        found = []
        for name in self.names():
            folder = self.root / name
            manifest = error = None
            try:
                manifest = Artifact.open(folder).manifest
                if missing := [file for file in _served_files(manifest) if not (folder / file).is_file()]:
                    error = f"{folder}: {', '.join(missing)} is missing; restore it or export the model again"
            except (ArtifactError, OSError) as problem:
                error = str(problem)
            stat = _stat(folder)
            if stat is not None:  # else it was removed meanwhile
                found.append(Version(name, _same(served, stat), _size(folder), manifest, error))
        return found

    def current(self) -> Link:
        """Return what `current` is."""
        path = self.root / CURRENT
        try:
            target = os.fspath(path.readlink())
        except OSError as error:
            return Link("missing" if error.errno == errno.ENOENT else "no_link")
        stat = _stat(path)
        if stat is None:
            return Link("nowhere", target)
        same = [name for name in self.names() if _same(stat, _stat(self.root / name))]
        if not same:
            return Link("elsewhere", target)
        return Link("model", target, target if target in same else same[0])

    def find(self, wanted: str, *, by_version: bool = True) -> str:
        """
        Return the name of the folder that is meant.

        Args:
            wanted: A folder's name.
            by_version: A version id does too, or its beginning if no other model's starts like it.

        Raises:
            InputError: nothing here is called so, or more than one thing; it says what there is.
        """
        if "/" in wanted or wanted in ("", ".", ".."):
            hint = wanted.rstrip("/").rpartition("/")[2].strip(".") or "NAME-1"
            raise InputError(f"{wanted!r} is a path; expected the name of a folder in {self.root}, such as {hint}")
        if wanted == CURRENT:
            raise InputError(f"{CURRENT} is the link to a model; name the folder of a model")
        if wanted.startswith("."):
            raise InputError(f"{wanted}: no model's name starts with a dot; what does is unfinished, or being removed")
        names = self.names()
        if wanted in names:
            return wanted
        if by_version and VERSION.fullmatch(wanted):
            same = [one.folder for one in self.all() if one.manifest and one.manifest.version.startswith(wanted)]
            if len(same) == 1:
                return same[0]
            if same:
                raise InputError(f"version {wanted} is that of {', '.join(same)}; name one of these folders")
        if os.path.lexists(self.root / wanted):
            raise InputError(f"{self.root / wanted}: is not a model folder (no {MANIFEST})")
        raise InputError(f"{self.root}: holds no model {wanted!r}; there are: {', '.join(names) or 'none'}")

    def use(self, wanted: str) -> Switch:
        """
        Have `current` lead to another model, once that has answered.

        The link is relative, so that it is right wherever the folder is mounted. A reader of it sees the old model or
        the new one, whenever this process is killed.

        Args:
            wanted: As in `find`.

        Raises:
            RefusedError: the model is broken; `current` stays what it was.
            InputError: no such model, `current` is no link, or the folder cannot be written.
        """
        name = self.find(wanted)
        folder = self.root / name
        self._check_replaceable()
        try:
            version = prove(folder, whole=False).version
            with self._alone():
                before = self._check_replaceable()
                if before.target == name:
                    return Switch(before, name, version, changed=False)
                # The lock keeps a removal away; this finds one that came before it.
                if Artifact.open(folder).manifest.version != version:
                    raise ArtifactError(f"{folder}: was replaced while it was checked; try again")
                self._point_to(name)
        except (ArtifactError, OSError) as error:
            raise RefusedError(f"{self.root / CURRENT} stays as it is ({self.current()}): {error}") from error
        return Switch(before, name, version, changed=True)

    def remove(self, wanted: Iterable[str]) -> list[str]:
        """
        Remove models and return their names; none goes if one of the names is wrong.

        Each leaves the list in one step, before its files are deleted: nobody finds half a model.

        Raises:
            InputError: no such model, it is the one that `current` leads to, or the folder cannot be written.
        """
        with self._alone():
            names = [self.find(name, by_version=False) for name in dict.fromkeys(wanted)]
            served = _stat(self.root / CURRENT)
            for name in names:
                if _same(served, _stat(self.root / name)):
                    raise InputError(
                        f"{self.root / CURRENT} leads to {name}, so it is not removed; `bertrand models use` another "
                        "one first"
                    )
                if not os.path.lexists(self.root / name / MANIFEST):
                    raise InputError(
                        f"{self.root / name}: is not removed, since without {MANIFEST} it may be anything; delete it "
                        "yourself if it is a model's remains"
                    )
            aside = self._set_aside(names)
        for name, path in zip(names, aside, strict=True):
            try:
                _delete(path)
            except OSError as error:
                raise InputError(
                    f"{self.root / name}: is gone from the list, but not all of its files could be deleted "
                    f"({error.strerror}); delete {path}"
                ) from error
        return names

    def _check_replaceable(self) -> Link:
        """Return what `current` is; raise InputError if that must not be replaced by a link."""
        link = self.current()
        if link.state == "no_link":
            path = self.root / CURRENT
            what = f"give it a name of its own (`mv {path} {self.root}/NAME-1`)" if path.is_dir() else "remove it"
            raise InputError(f"{path}: is no link, so it is not replaced; {what}, then try again")
        return link

    def _point_to(self, name: str) -> None:
        fresh = self.root / f"{NEXT}{secrets.token_hex(8)}"
        try:
            fresh.symlink_to(name)
            fresh.replace(self.root / CURRENT)
        except BaseException:
            fresh.unlink(missing_ok=True)
            raise

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """
        Change the folder while nobody else does, and have the change on disk at the end.

        The lock is on the folder itself: it leaves no file, and ends with the process.
        """
        self.names()  # says it best if there is no such folder
        try:
            folder = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY)
            try:
                # NFS locks no folders. Names and link change in one step there too; only a model that is removed in the
                # instant in which it becomes the current one would not be noticed.
                with contextlib.suppress(OSError):
                    fcntl.flock(folder, fcntl.LOCK_EX)
                    self._clear()
                yield
                with contextlib.suppress(OSError):  # some file systems cannot, and the change is made
                    os.fsync(folder)
            finally:
                os.close(folder)
        except OSError as error:
            raise InputError(
                f"{self.root}: cannot be changed ({error.strerror or error}); run this where the folder is writable"
            ) from error

    def _clear(self) -> None:
        """Delete what killed processes left; what is somebody else's stays."""
        for path in self.root.iterdir():
            if LEFTOVER.fullmatch(path.name):
                with contextlib.suppress(OSError):
                    _delete(path)

    def _set_aside(self, names: list[str]) -> list[Path]:
        """Rename folders to hidden names, all of them or none."""
        moved: list[tuple[Path, Path]] = []
        try:
            for name in names:
                path, aside = self.root / name, self.root / f"{REMOVED}{secrets.token_hex(8)}"
                path.rename(aside)
                moved.append((path, aside))
        except BaseException:
            for path, aside in moved:
                aside.rename(path)
            raise
        return [aside for _, aside in moved]


def prove(folder: Path, *, whole: bool = True) -> Manifest:
    """
    Check a model folder by content, and have it answer as a service would.

    Args:
        folder: A model folder.
        whole: Check the files that serving does not read too. Checkpoint, report and card may have been left out; what
            is there must be what was written.

    Raises:
        ArtifactError: a file is missing or altered, or the model does not answer.
    """
    artifact = Artifact.open(folder)
    manifest = artifact.manifest
    for name in _served_files(manifest):
        artifact.file(name)
    for name in manifest.sha256 if whole else ():
        if os.path.lexists(artifact.folder / name.partition("/")[0]):
            artifact.file(name)
    # What a service takes here unless it is told otherwise, and the reference.
    for precision in sorted({artifact.precision("auto")} | ({"fp32"} & {*manifest.precisions})):
        try:
            classifier = Classifier.load(artifact.folder, precision=precision)
            texts = ["ok", " ".join(["ok"] * manifest.max_tokens)]  # the second is as long as any that it reads
            scores = classifier.score(texts, batch_size=1)
            classifier.analyze(texts, batch_size=1)
        except ArtifactError:
            raise
        except Exception as error:  # onnxruntime's errors, and those of values that no reader has looked at yet
            raise ArtifactError(f"{folder}: does not answer in {precision} ({error}); export it again") from error
        if not np.isfinite(scores).all():
            raise ArtifactError(f"{folder}: answers in {precision} with scores that are no numbers; export it again")
        if classifier.manifest.version != manifest.version:
            raise ArtifactError(f"{folder}: was replaced while it was read; try again")
    return manifest


def _served_files(manifest: Manifest) -> list[str]:
    return [TOKENIZER, *(GRAPHS[precision] for precision in manifest.precisions)]


def _is_model(entry: os.DirEntry[str]) -> bool:
    if entry.name.startswith(".") or entry.name in NO_MODELS or not entry.is_dir():
        return False
    # A folder that is closed to us may well be a model, whose owner should be told.
    return not os.access(entry.path, os.X_OK) or any(os.path.lexists(f"{entry.path}/{file}") for file in MODEL_FILES)


def _natural(name: str) -> tuple[list[str | int], str]:
    return [int(part) if i % 2 else part for i, part in enumerate(re.split(r"(\d+)", name))], name


def _stat(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except OSError:  # not there, or a link that leads nowhere
        return None


def _same(one: os.stat_result | None, other: os.stat_result | None) -> bool:
    return one is not None and other is not None and os.path.samestat(one, other)


def _size(folder: Path) -> int:
    total = 0
    for place, _, files in os.walk(folder):
        for file in files:
            with contextlib.suppress(OSError):  # removed meanwhile
                total += os.lstat(f"{place}/{file}").st_size
    return total


def _delete(path: Path) -> None:
    """Delete a link or a folder, whoever else is at it."""
    if path.is_symlink():
        path.unlink(missing_ok=True)
        return

    def go_on(_: object, __: str, problem: tuple[type[BaseException], BaseException, object]) -> None:
        if not isinstance(problem[1], FileNotFoundError):
            raise problem[1]

    shutil.rmtree(path, onerror=go_on)
