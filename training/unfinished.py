"""Going on with what was not finished: only as what it was begun as, and alone."""

from __future__ import annotations

import fcntl
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from inference.errors import InputError
from training.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path


@contextmanager
def alone(work: Path) -> Iterator[None]:
    """
    Have the folder of a run to oneself: two runs in one would take each other's states away.

    The lock is a file beside the folder, which goes at the end. The lock of a killed process is none.

    Raises:
        InputError: another process has it.
    """
    path = work.with_name(f"{work.name}.lock")
    file = _lock(path, work)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(file)


def _lock(path: Path, work: Path) -> int:
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        file = os.open(path, os.O_CREAT | os.O_RDWR, 0o644)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(file)
            raise InputError(
                f"{work}: another process is at work there; wait for its end, or name another --out"
            ) from None
        except OSError:
            return file  # of a file system that locks nothing
        if os.fstat(file).st_nlink:
            return file
        os.close(file)  # of a run that ended between the two calls and took its lock away


def check_same(
    place: Path, before: Mapping[str, Any], now: Mapping[str, Any], *, differing: Sequence[str] = (), what: str = "run"
) -> None:
    """
    Raise DataError unless something is gone on with as it was begun.

    Args:
        place: What is named in the error.
        before: The settings it was begun with.
        now: Those of today.
        differing: What else is not the same, in words.
        what: Was begun.
    """
    changed = [
        f"{name} was {before.get(name)!r} and is {now.get(name)!r}"
        for name in dict.fromkeys((*now, *before))
        if before.get(name) != now.get(name)
    ]
    if changed or differing:
        raise DataError(
            f"{place}: cannot resume, {'; '.join((*changed, *differing))}; use what the unfinished {what} used, or "
            "leave out --resume"
        )
