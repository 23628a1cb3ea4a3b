"""Charts as inline SVG: they take their colours from the page around them and say in words what they show."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from markupsafe import Markup

if TYPE_CHECKING:
    from collections.abc import Sequence

    from training.confusion import Cell
    from training.metrics import Bin, Interval

WIDTH, HEIGHT = 400, 250  # units of a chart, which are pixels where there is room for them
LEFT, RIGHT, TOP, BOTTOM = 52, 14, 12, 40  # margins
LONGEST_NAME = 28  # characters of a label beside the heat map


@dataclass(frozen=True)
class Line:
    """A named series of points; those that are not finite are left out."""

    name: str
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True)
class _Axis:
    """Values to places along one side of a chart."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        return self.start + (self.end - self.start) * (value - self.low) / ((self.high - self.low) or 1)


def lines(title: str, series: Sequence[Line], *, x: str, y: str, mark: float | None = None) -> Markup:
    """
    Draw lines over one axis.

    Args:
        title: What the chart shows.
        series: Up to three lines.
        x: What runs to the right.
        y: What runs upwards.
        mark: Where on the x axis to draw an upright line.
    """
    series = [Line(line.name, [p for p in line.points if all(map(math.isfinite, p))]) for line in series]
    xs = [point[0] for line in series for point in line.points]
    ys = [point[1] for line in series for point in line.points]
    if not xs:
        return Markup("")
    x_ticks, y_ticks = _ticks(min(xs), max(xs)), _ticks(min(ys), max(ys))
    across, up = _axes(x_ticks, y_ticks)
    parts = [_frame(across, up, x_ticks, y_ticks, x, y)]
    if mark is not None:
        parts.append(_element("line", class_="mark", x1=across(mark), x2=across(mark), y1=TOP, y2=HEIGHT - BOTTOM))
    told = []
    for number, line in enumerate(series, start=1):
        if not line.points:
            continue
        places = [(across(left), up(value)) for left, value in line.points]
        path = " ".join(f"{_short(left)},{_short(top)}" for left, top in places)
        parts.append(_element("polyline", class_=f"line s{number}", points=path))
        if len(places) <= 60:
            parts += [_element("circle", class_=f"dot s{number}", cx=left, cy=top, r=2.5) for left, top in places]
        told.append(f"{line.name} from {line.points[0][1]:.3g} to {line.points[-1][1]:.3g}")
    names = [(f"s{number}", line.name) for number, line in enumerate(series, start=1) if line.points]
    return _figure(title, f"{title}: {', '.join(told)}", parts, legend=names if len(names) > 1 else ())


def reliability(title: str, bins: Sequence[Bin]) -> Markup:
    """Draw accuracy over confidence, each bin a disc of the size of its rows; on the diagonal they are equal."""
    ticks = [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    across, up = _axes(ticks, ticks)
    parts = [
        _frame(across, up, ticks, ticks, "confidence", "accuracy"),
        _element("line", class_="mark", x1=across(0), y1=up(0), x2=across(1), y2=up(1)),
    ]
    filled = [part for part in bins if part.rows]
    total = sum(part.rows for part in filled) or 1
    for part in filled:
        left, top = across(part.confidence), up(part.accuracy)
        told = f"{part.rows} with confidence {part.confidence:.2f}: accuracy {part.accuracy:.2f}"
        parts += [
            _element("line", class_="gap", x1=left, x2=left, y1=up(part.confidence), y2=top),
            _element(
                "circle",
                _element("title", told),
                class_="disc",
                cx=left,
                cy=top,
                r=2.5 + 11 * math.sqrt(part.rows / total),
            ),
        ]
    worst = max(filled, key=lambda part: abs(part.accuracy - part.confidence), default=None)
    told = f"{title}: accuracy against confidence in {len(filled)} bins"
    if worst:
        told += f", furthest apart at confidence {worst.confidence:.2f} with accuracy {worst.accuracy:.2f}"
    return _figure(title, told, parts)


def whisker(value: float, interval: Interval) -> Markup:
    """Draw a value from 0 to 1 and its interval, as small as a table's cell."""
    low, high = interval
    return _element(
        "svg",
        _element("line", class_="track", x1=0, x2=100, y1=6, y2=6),
        _element("line", class_="whisker", x1=100 * low, x2=100 * high, y1=6, y2=6),
        _element("circle", class_="value", cx=100 * value, cy=6, r=3),
        class_="whiskers",
        viewBox="-4 0 108 12",
        aria_hidden="true",
    )


def bar(share: float) -> Markup:
    """Draw a bar for a share from 0 to 1, as small as a table's cell."""
    return _element(
        "svg",
        _element("rect", class_="bar", width=100 * share, height=10),
        class_="bars",
        viewBox="0 0 100 10",
        preserveAspectRatio="none",
        aria_hidden="true",
    )


def heat_map(labels: Sequence[str], order: Sequence[int], cells: Sequence[Cell]) -> Markup:
    """
    Draw a confusion matrix: true labels downwards, given ones to the right, the stronger the larger a row's share.

    The page's script moves what is drawn here: every cell has its place in `cells`, every name that of its label.

    Args:
        labels: Their names.
        order: Places in `labels`, in the order to draw them.
        cells: Those that have rows.
    """
    size = min(44, max(12, 480 // len(labels)))
    names = [label if len(label) <= LONGEST_NAME else f"{label[: LONGEST_NAME - 1]}…" for label in labels]
    margin = 16 + round(6.2 * max(map(len, names)))
    side = size * len(labels)
    place = {label: position for position, label in enumerate(order)}
    totals = [0] * len(labels)
    for cell in cells:
        totals[cell.true or 0] += cell.rows
    parts = [_element("rect", class_="field", x=margin, y=margin, width=side, height=side)]
    for i, name in enumerate(names):
        middle = margin + size * (place[i] + 0.5)
        full = _element("title", labels[i])
        down = f"translate({margin - 5} {_short(middle)})"
        right = f"translate({_short(middle)} {margin - 5}) rotate(-90)"
        parts += [
            _element("text", name, full, class_="name true", data_label=i, transform=down),
            _element("text", name, full, class_="name given", data_label=i, transform=right),
        ]
    for i, cell in enumerate(cells):
        true, given = cell.true or 0, cell.given or 0
        told = f"true {labels[true]}, given {labels[given]}: {_rows(cell.rows)}"
        parts.append(
            _element(
                "rect",
                _element("title", told),
                class_="right" if true == given else "wrong",
                data_cell=i,
                x=margin + size * place[given],
                y=margin + size * place[true],
                width=size,
                height=size,
                # By the root of the share: one mistake among forty must still be seen.
                fill_opacity=round(0.3 + 0.7 * math.sqrt(cell.rows / totals[true]), 2),
            )
        )
    parts.append(_element("rect", class_="cursor", width=size, height=size, visibility="hidden"))
    return _element(
        "svg",
        *parts,
        id="matrix",
        role="img",
        aria_label=f"Confusion matrix of {len(labels)} labels; the mistakes are listed below",
        width=margin + side + 2,
        height=margin + side + 2,
        data_size=size,
        data_margin=margin,
    )


def _axes(x_ticks: Sequence[float], y_ticks: Sequence[float]) -> tuple[_Axis, _Axis]:
    across = _Axis(x_ticks[0], x_ticks[-1], LEFT, WIDTH - RIGHT)
    return across, _Axis(y_ticks[0], y_ticks[-1], HEIGHT - BOTTOM, TOP)


def _frame(
    across: _Axis, up: _Axis, x_ticks: Sequence[float], y_ticks: Sequence[float], x_name: str, y_name: str
) -> Markup:
    floor, middle = HEIGHT - BOTTOM, (TOP + HEIGHT - BOTTOM) / 2
    parts = []
    for value in y_ticks:
        parts += [
            _element("line", class_="grid", x1=LEFT, x2=WIDTH - RIGHT, y1=up(value), y2=up(value)),
            _element("text", f"{value:g}", x=LEFT - 6, y=up(value) + 4, text_anchor="end"),
        ]
    for value in x_ticks:
        parts += [
            _element("line", class_="grid", x1=across(value), x2=across(value), y1=floor, y2=floor + 4),
            _element("text", f"{value:g}", x=across(value), y=floor + 17, text_anchor="middle"),
        ]
    parts += [
        _element("text", x_name, x=(LEFT + WIDTH - RIGHT) / 2, y=HEIGHT - 5, text_anchor="middle"),
        _element("text", y_name, transform=f"translate(11 {_short(middle)}) rotate(-90)", text_anchor="middle"),
    ]
    return Markup("").join(parts)


def _ticks(low: float, high: float) -> list[float]:
    """Return about five round numbers whose first and last enclose the range."""
    if low == high:
        low, high = min(low, 0), max(high, 0) or 1  # a share of 1 has no place above it
    step = 10 ** math.floor(math.log10((high - low) / 4))
    step *= next(factor for factor in (1, 2, 5, 10) if (high - low) / (step * factor) <= 5)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(number * step, 10) for number in range(first, last + 1)]


def _figure(title: str, told: str, parts: Sequence[Markup], legend: Sequence[tuple[str, str]] = ()) -> Markup:
    keys = [
        _element(
            "span",
            _element(
                "svg",
                _element("line", class_=f"line {style}", x1=0, x2=26, y1=6, y2=6),
                viewBox="0 0 26 12",
                aria_hidden="true",
            ),
            " ",
            name,
            class_="key",
        )
        for style, name in legend
    ]
    drawn = _element("svg", *parts, class_="chart", viewBox=f"0 0 {WIDTH} {HEIGHT}", role="img", aria_label=told)
    return _element("figure", _element("figcaption", _element("b", title), *keys), drawn)


def _element(name: str, *children: str | Markup, **attributes: str | float) -> Markup:
    """Return an element; text and attributes are escaped, and `class_` is `class`, `data_x` is `data-x`."""
    written = Markup("").join(
        Markup(' {}="{}"').format(key.rstrip("_").replace("_", "-"), value if isinstance(value, str) else _short(value))
        for key, value in attributes.items()
    )
    inner = Markup("").join(children)
    return Markup("<{0}{1}>{2}</{0}>").format(name, written, inner)


def _short(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")


def _rows(count: int) -> str:
    return f"{count} row{'' if count == 1 else 's'}"
