"""The page of a study: what was measured, what the figures say of this data, and what they do not say."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from training.base import DEFAULT_HUB_ID
from training.rendering import templates
from training.settings import DEFAULT_BASE
from training.svg import Figure, file_name

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from markupsafe import Markup


PAGE = "study.html"
FIGURES = "figures"


@dataclass(frozen=True)
class Table:
    """A table: names of the columns, and rows whose first cell names them."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str | float | None]]
    folded: bool = False  # until it is asked for; long ones always are


@dataclass(frozen=True)
class Section:
    """One measurement: paragraphs are plain text, all numbers in them those of study.json."""

    title: str
    measured: Sequence[str]  # what was measured, and how
    says: Sequence[str]  # what the figures say of this data
    limits: Sequence[str] = ()  # what they do not say
    figures: Sequence[Figure | Markup] = ()
    tables: Sequence[Table] = ()


@dataclass(frozen=True)
class Report:
    """What a person reads of a study."""

    title: str
    question: str
    answer: Sequence[str]  # the findings, the most important first
    tiles: Sequence[tuple[str, str, str]]  # name, figure, and a note below it
    sections: Sequence[Section]
    about: Sequence[str] = ()  # of the base, the data and the choices: what the whole page rests on


def render(record: Mapping[str, Any], report: Report) -> str:
    """Return the page as one file that needs nothing else."""
    settings = [(key, _told(value)) for key, value in record["settings"].items() if key != "study"]
    return templates.get_template("study.html").render(
        report=report,
        record=record,
        settings=settings,
        cell=_cell,
        is_number=_is_number,
    )


def write(folder: Path, record: Mapping[str, Any], report: Report) -> None:
    """Write the page, and each of its figures as a file."""
    (folder / PAGE).write_text(render(record, report), encoding="utf-8")
    (folder / FIGURES).mkdir()
    css = "".join(templates.get_template(name).render() for name in ("colours.css", "chart.css", "figure.css"))
    drawn = [figure for section in report.sections for figure in section.figures if isinstance(figure, Figure)]
    seen: Counter[str] = Counter()
    for figure in drawn:
        name = file_name(figure.title)
        seen[name] += 1
        name = name if seen[name] == 1 else f"{name}-{seen[name]}"
        (folder / FIGURES / f"{name}.svg").write_text(figure.file(css), encoding="utf-8")


def about_base(base: str) -> list[str]:
    """Return what a reader has to know of a base model to read a study of it."""
    if base not in (DEFAULT_BASE, DEFAULT_HUB_ID):
        return []
    return [
        f"The base model {base} was pretrained by predicting masked words, distilled from a larger model, and then "
        "trained further on pairs of sentences that mean the same. What it contributes is the sum of all three; a base "
        "that `bertrand pretrain` makes has predicted masked words and nothing else."
    ]


def percent(share: float, digits: int = 1) -> str:
    """Return a share as `92.3 %`."""
    return f"{100 * share:.{digits}f}\N{NO-BREAK SPACE}%"


def points(difference: float) -> str:
    """Return a difference of two shares in percentage points, without its sign."""
    return f"{100 * abs(difference):.1f} points"


def span(low: float, high: float) -> str:
    """Return an interval of shares as `90.1 % to 92.3 %`."""
    return f"{percent(low)} to {percent(high)}"


def _cell(value: str | float | None) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) else value


def _is_number(value: object) -> bool:
    return isinstance(value, float | int)


def _told(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_told(part)}" for key, part in value.items())
    if isinstance(value, list):
        return ", ".join(map(_told, value))
    return "not set" if value is None else _cell(value)
