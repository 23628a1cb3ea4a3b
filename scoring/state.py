"""How far a job is: its record and the parts that are done, kept beside the output until it is complete."""

from __future__ import annotations

import fcntl
import json
import os
import re
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from inference.errors import InputError
from scoring.output import REPLACED, assemble, gather, own_files
from scoring.place import explained

if TYPE_CHECKING:
    from typing import Self

    from scoring.label import Done
    from scoring.place import Kind, Place

RECORD, LOCK = "job.json", "lock"
PART = re.compile(r"part-(\d{6,})((?:-[a-z_]+=\d+)*)")


@dataclass
class State:
    """
    The parts that are done.

    The name of a part tells what was counted of it, as in `part-000003-rows=16384-text_empty=2`. So it is written in
    one step with what is known of it: whenever a job is killed, a part that is there is done, and one that is not is
    computed again. Used with `with`, which keeps other processes from the output.
    """

    target: Place
    kind: Kind
    job: dict[str, Any]  # what decides the bytes of the output
    parts: dict[int, dict[str, int]] = field(default_factory=dict)  # what was counted of each that is done
    complete: bool = False  # the output is there
    _lock: int | None = None  # descriptor of a locked file; None where the output is on no disk of this machine

    @classmethod
    def open(cls, target: Place, kind: Kind, job: dict[str, Any], *, resume: bool) -> State:
        """
        Begin a job, or go on with the one that was interrupted.

        Raises:
            InputError: another process works at the same output; with `resume`, the unfinished job is another one.
        """
        state = cls(target, kind, job)
        _check_target(target, kind)
        if target.is_local:
            state._lock = _locked(target, state.folder)
        try:
            state._begin(resume=resume)
        except BaseException:
            state.close()
            raise
        return state

    def _begin(self, *, resume: bool) -> None:
        replaced = self.folder.within(REPLACED)
        if self.target.is_local and replaced.exists() and not self.target.exists():
            with explained(self.target.url):  # a kill between two renames: the earlier output is still the output
                os.replace(replaced.path, self.target.path)  # noqa: PTH105
        record = self.folder.within(RECORD)
        before = json.loads(record.read()) if record.exists() else None
        found = self._find()
        if resume and before is not None:
            self._compare(before)
            self.parts = found
            return
        if resume:
            print("no unfinished job to resume; starting anew", file=sys.stderr)
        elif before is not None and found:
            print(
                f"an unfinished job of {sum(counted['rows'] for counted in found.values())} rows is given up; "
                "--resume would have gone on with it",
                file=sys.stderr,
            )
        self._clear()
        record.put(json.dumps(self.job).encode())

    def _clear(self) -> None:
        """Remove what other jobs left, the record first: parts without one belong to no job."""
        self.folder.within(RECORD).remove()
        others = [self.folder.within(name).path for name in self._names() if name != LOCK]
        if others:
            with explained(self.folder.url):
                self.folder.fs.rm(others, recursive=True)

    def close(self) -> None:
        """Let other processes work at the output."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def folder(self) -> Place:
        """Where parts and record are."""
        return self.target.beside(f".{self.target.name}.scoring")

    @property
    def advice(self) -> str:
        """How to go on after what ends the job now."""
        if self.complete:
            return "the output is complete"
        rows = sum(part["rows"] for part in self.parts.values())
        return f"{rows} rows are done and kept; go on with --resume" if rows else "no row is done yet"

    def add(self, done: Done) -> None:
        """Keep a part, and what was counted of its rows."""
        self._part(done.part, done.counted).put(done.content)
        self.parts[done.part] = done.counted

    def finish(self) -> None:
        """Make the output of its parts, and forget them."""
        parts = [self._part(number, counted) for number, counted in sorted(self.parts.items())]
        make = gather if self.kind.folder else assemble
        make(parts, self.folder.within("output"), self.target, self.kind)
        self.complete = True
        self._clear()
        self.folder.remove()

    def _part(self, number: int, counted: dict[str, int]) -> Place:
        return self.folder.within(f"part-{number:06}" + "".join(f"-{name}={count}" for name, count in counted.items()))

    def _find(self) -> dict[int, dict[str, int]]:
        parts = {}
        for name in self._names():
            if match := PART.fullmatch(name):
                counts = (pair.split("=") for pair in match[2].split("-")[1:])
                parts[int(match[1])] = {name: int(count) for name, count in counts}
        return parts

    def _names(self) -> list[str]:
        with explained(self.folder.url):
            self.folder.fs.invalidate_cache(self.folder.path)  # of what another process wrote
            if not self.folder.fs.exists(self.folder.path):
                return []
            paths = [path.rstrip("/") for path in self.folder.fs.ls(self.folder.path, detail=False)]
        # Of an object store a folder may list itself.
        return [path.rpartition("/")[2] for path in paths if path != self.folder.path]

    def _compare(self, before: dict[str, Any]) -> None:
        differing = [
            f"{name.replace('_', ' ')} was {_short(before.get(name))} and is {_short(value)}"
            for name, value in json.loads(json.dumps(self.job)).items()
            if before.get(name) != value
        ]
        if differing:
            raise InputError(
                f"{self.target.url}: cannot resume, {'; '.join(differing)}; "
                "use what the unfinished job used, or leave out --resume"
            )


def _locked(target: Place, folder: Place) -> int:
    """Make the folder of a job on this machine, and keep other processes from it while the descriptor is open."""
    parent = target.beside("").path
    if not os.path.isdir(parent):  # noqa: PTH112  the path is a string of fsspec's
        raise InputError(f"{parent}: there is no such folder to write {target.name} into")
    path = folder.within(LOCK).path
    with explained(target.url):
        while True:
            os.makedirs(folder.path, exist_ok=True)  # noqa: PTH103
            lock = os.open(path, os.O_CREAT | os.O_RDWR)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.path.exists(path) and os.path.samestat(os.fstat(lock), os.stat(path)):  # noqa: PTH110, PTH116
                    return lock
            except BlockingIOError as error:
                os.close(lock)
                raise InputError(f"{target.url}: another process is working at it ({folder.path})") from error
            except BaseException:
                os.close(lock)
                raise
            os.close(lock)  # the file of a job that ended in between


def _check_target(target: Place, kind: Kind) -> None:
    """Raise InputError where the output could not be given its name at the end, or something would be lost."""
    if not target.is_local:
        if not target.fs._parent(target.path):
            raise InputError(f"{target.url}: is a whole bucket; name a file or a folder in it")
        if set(target.path) & set("*?[]"):
            raise InputError(
                f"{target.url}: has one of *?[] in its name, which stand for others in URLs; leave them out"
            )
    if kind.folder:
        own_files(target)
        if target.is_local and os.path.ismount(target.path):
            raise InputError(f"{target.url}: is a mount point, which cannot be replaced; name a folder in it")
        if target.is_local and target.exists() and os.path.samefile(target.path, os.getcwd()):  # noqa: PTH109, PTH121
            raise InputError(f"{target.url}: is the folder in which the job was started; name another, or one in it")
    elif target.is_local and os.path.exists(target.path) and not os.path.isfile(target.path):  # noqa: PTH110, PTH113
        raise InputError(f"{target.url}: is no regular file; name one that is, or one that is not there")


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 200 else f"{text[:200]}..."
