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
from scoring.output import assemble, gather, own_files
from scoring.place import explained

if TYPE_CHECKING:
    from typing import Self

    from scoring.label import Done
    from scoring.place import Kind, Place

RECORD = "job.json"
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
    _lock: int | None = None  # descriptor of a locked file; None on file systems that have no locks

    @classmethod
    def open(cls, target: Place, kind: Kind, job: dict[str, Any], *, resume: bool) -> State:
        """
        Begin a job, or go on with the one that was interrupted.

        Raises:
            InputError: another process works at the same output; with `resume`, the unfinished job is another one.
        """
        state = cls(target, kind, job)
        if kind.folder:
            own_files(target)
        if target.is_local:
            state._lock = _locked(target, state.folder)
        try:
            state._begin(resume=resume)
        except BaseException:
            state.close()
            raise
        return state

    def _begin(self, *, resume: bool) -> None:
        record = self.folder.within(RECORD)
        before = json.loads(record.read()) if record.exists() else None
        found = self._find() if before is not None else {}
        if resume and before is not None:
            self._compare(before)
            self.parts = found
            return
        if resume:
            print("no unfinished job to resume; starting anew", file=sys.stderr)
        elif found:
            print(
                f"an unfinished job of {sum(counted['rows'] for counted in found.values())} rows is given up; "
                "--resume would have gone on with it",
                file=sys.stderr,
            )
        for number, counted in found.items():
            self._part(number, counted).remove()
        record.put(json.dumps(self.job).encode())

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
        self.folder.remove()

    def _part(self, number: int, counted: dict[str, int]) -> Place:
        return self.folder.within(f"part-{number:06}" + "".join(f"-{name}={count}" for name, count in counted.items()))

    def _find(self) -> dict[int, dict[str, int]]:
        parts = {}
        with explained(self.folder.url):
            self.folder.fs.invalidate_cache(self.folder.path)  # of what another process wrote
            paths = self.folder.fs.ls(self.folder.path, detail=False)
        for path in paths:
            if match := PART.fullmatch(path.rstrip("/").rpartition("/")[2]):
                counts = (pair.split("=") for pair in match[2].split("-")[1:])
                parts[int(match[1])] = {name: int(count) for name, count in counts}
        return parts

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
    with explained(target.url):
        os.makedirs(folder.path, exist_ok=True)  # noqa: PTH103
        lock = os.open(folder.within("lock").path, os.O_CREAT | os.O_RDWR)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(lock)
        raise InputError(f"{target.url}: another process is working at it ({folder.path})") from error
    return lock


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 200 else f"{text[:200]}..."
