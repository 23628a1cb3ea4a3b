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

if TYPE_CHECKING:
    from scoring.place import Kind, Place

RECORD = "job.json"


@dataclass
class State:
    """
    The parts that are done.

    A part is written before the record that lists it, each in one step: whenever a job is killed, what is listed is
    there, and what is not listed is computed again.
    """

    target: Place
    kind: Kind
    job: dict[str, Any]  # what decides the bytes of the output
    parts: list[dict[str, Any]] = field(default_factory=list)  # rows and what was counted of each

    @classmethod
    def open(cls, target: Place, kind: Kind, job: dict[str, Any], *, resume: bool) -> State:
        """
        Begin a job, or go on with the one that was interrupted.

        Raises:
            InputError: another process works at the same output; with `resume`, the unfinished job is another one.
        """
        state = cls(target, kind, job)
        if target.is_local:
            if not os.path.isdir(target.beside("").path):  # noqa: PTH112  the path is a string of fsspec's
                raise InputError(f"{target.beside('').path}: there is no such folder to write {target.name} into")
            os.makedirs(state.folder.path, exist_ok=True)  # noqa: PTH103
            state._lock()
        record = state.folder.within(RECORD)
        before = json.loads(record.read()) if record.exists() else None
        if resume and before is not None:
            state._compare(before["job"])
            state.parts = before["parts"]
        elif resume:
            print("no unfinished job to resume; starting anew", file=sys.stderr)
        elif before is not None and before["parts"]:
            print(
                f"an unfinished job of {sum(part['rows'] for part in before['parts'])} rows is given up; "
                "--resume would have gone on with it",
                file=sys.stderr,
            )
        state._write()
        return state

    @property
    def folder(self) -> Place:
        """Where parts and record are."""
        return self.target.beside(f".{self.target.name}.scoring")

    @property
    def rows(self) -> int:
        """How many rows are done."""
        return sum(part["rows"] for part in self.parts)

    def add(self, content: bytes, **counted: Any) -> None:
        """Keep the next part, and what was counted of its rows."""
        self._part(len(self.parts)).put(content)
        self.parts.append(counted)
        self._write()

    def finish(self) -> None:
        """Make the output of its parts, and forget them."""
        assemble([self._part(number) for number in range(len(self.parts))], self.target, self.kind)
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

    def _lock(self) -> None:
        lock = os.open(self.folder.within("lock").path, os.O_CREAT | os.O_RDWR)  # closed when the process ends
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(lock)
            raise InputError(f"{self.target.url}: another process is working at it ({self.folder.path})") from error


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 200 else f"{text[:200]}..."
