"""How far a job is: parts of its output and a record of them, kept beside the output until it is complete."""

from __future__ import annotations

import fcntl
import json
import os
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from inference.errors import InputError
from scoring.output import assemble
from scoring.place import explained

if TYPE_CHECKING:
    from typing import Self

    from scoring.place import Kind, Place

RECORD = "job.json"


@dataclass
class State:
    """
    The parts that are done.

    A part is written before the record that lists it, each in one step: whenever a job is killed, what is listed is
    there, and what is not listed is computed again. Used with `with`, which keeps other processes from the output.
    """

    target: Place
    kind: Kind
    job: dict[str, Any]  # what decides the bytes of the output
    parts: list[dict[str, Any]] = field(default_factory=list)  # rows and what was counted of each
    _lock: int | None = None  # descriptor of a locked file; None on file systems that have no locks

    @classmethod
    def open(cls, target: Place, kind: Kind, job: dict[str, Any], *, resume: bool) -> State:
        """
        Begin a job, or go on with the one that was interrupted.

        Raises:
            InputError: another process works at the same output; with `resume`, the unfinished job is another one.
        """
        state = cls(target, kind, job)
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
        if resume and before is not None:
            self._compare(before["job"])
            self.parts = before["parts"]
        elif resume:
            print("no unfinished job to resume; starting anew", file=sys.stderr)
        elif before is not None and before["parts"]:
            print(
                f"an unfinished job of {sum(part['rows'] for part in before['parts'])} rows is given up; "
                "--resume would have gone on with it",
                file=sys.stderr,
            )
        self._write()

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
        rows = sum(part["rows"] for part in self.parts)
        return f"{rows} rows are done and kept; go on with --resume" if rows else "no row is done yet"

    def add(self, content: bytes, **counted: Any) -> None:
        """Keep the next part, and what was counted of its rows."""
        self._part(len(self.parts)).put(content)
        self.parts.append(counted)
        self._write()

    def finish(self) -> None:
        """Make the output of its parts, and forget them."""
        parts = [self._part(number) for number in range(len(self.parts))]
        assemble(parts, self.folder.within("output"), self.target, self.kind)
        self.folder.remove()

    def _part(self, number: int) -> Place:
        return self.folder.within(f"part-{number:06}")

    def _write(self) -> None:
        self.folder.within(RECORD).put(json.dumps({"job": self.job, "parts": self.parts}).encode())

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
