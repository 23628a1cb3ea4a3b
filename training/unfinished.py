"""Going on with what was not finished: only as what it was begun as."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from training.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path


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
