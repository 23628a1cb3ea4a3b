"""How numbers, lists and values are said in sentences."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence


def counted(number: int, noun: str) -> str:
    """Return `1 row`, `2 rows`, `1,000 rows`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def between(least: int, most: int, noun: str) -> str:
    """Return `3 to 40 rows`, or `8 rows` where both are the same."""
    return counted(most, noun) if least == most else f"{least:,} to {counted(most, noun)}"


def joined(names: Sequence[str]) -> str:
    """Return names as a sentence lists them: `a, b and c`."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}" if names else "none"


def listing(names: Sequence[str]) -> str:
    """Return names in quotes: the first eight, and how many more there are."""
    shown = ", ".join(repr(name) for name in names[:8])
    return shown if len(names) <= 8 else f"{shown} and {len(names) - 8} more"


def kind(value: Any) -> str:
    """Return the type of a value and how it begins, `int '7'`, or that it is missing."""
    return "missing" if value is None else f"{type(value).__name__} {str(value)[:40]!r}"


def percent(share: float) -> str:
    """Return a share of 1 as `86.2 %`, which no line is broken in."""
    return f"{100 * share:.1f}\N{NO-BREAK SPACE}%"


def probability(value: float, digits: int = 2) -> str:
    """Return a probability in so many digits, or in as many more as show that it is below 1."""
    shown = f"{value:.{digits}g}"
    return probability(value, digits + 1) if value < 1 <= float(shown) else shown
