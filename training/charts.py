"""Charts of reports and studies."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from markupsafe import Markup

from training.svg import (
    BOTTOM,
    HEIGHT,
    RIGHT,
    TOP,
    WIDTH,
    Axis,
    Figure,
    axes,
    element,
    frame,
    isolated,
    short,
    shortened,
    text_width,
    ticks,
)
from training.wording import counted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from training.confusion import Cell
    from training.metrics import Bin, Interval

LONGEST_NAME = 28  # characters of a label beside the heat map
TALLEST = 60  # row of a grid: of few columns, squares would be huge
MIDDLE, STRONG = 0.63, 0.83  # opacity of a square from which its number is black, and white, in one theme or the other


@dataclass(frozen=True)
class Line:
    """A named series of points; those that are not finite are left out."""

    name: str
    points: Sequence[tuple[float, float]]
    spread: Sequence[tuple[float, float]] = ()  # lowest and highest value around each point
    style: int | None = None  # from 1 to 6, for what has the same one in several charts; None: by its place


def lines(
    title: str,
    series: Sequence[Line],
    *,
    x: str,
    y: str,
    mark: float | None = None,
    x_ticks: Sequence[float] | None = None,
    by_factors: bool = False,
) -> Figure | Markup:
    """
    Draw lines over one axis.

    Args:
        title: What the chart shows.
        series: Up to six lines.
        x: What runs to the right.
        y: What runs upwards.
        mark: Where on the x axis to draw an upright line.
        x_ticks: Values to name on the x axis; the first and the last are its ends.
        by_factors: Equal steps to the right are equal factors.
    """
    series = [_finite(line) for line in series]
    xs = [point[0] for line in series for point in line.points]
    ys = [
        value for line in series for value in (*(y for _, y in line.points), *(y for pair in line.spread for y in pair))
    ]
    if not xs:
        return Markup("")
    across, up = axes(
        x_ticks or ticks(min(xs), max(xs)), ticks(min(ys), max(ys)), x_scale=math.log10 if by_factors else float
    )
    parts = [frame(across, up, x, y)]
    if mark is not None:
        parts.append(element("line", class_="mark", x1=across(mark), x2=across(mark), y1=TOP, y2=HEIGHT - BOTTOM))
    told = []
    for place, line in enumerate(series, start=1):
        number = line.style or place
        if not line.points:
            continue
        places = [(across(left), up(value)) for left, value in line.points]
        if line.spread:
            edge = [(left, up(high)) for (left, _), (_, high) in zip(places, line.spread, strict=True)]
            edge += [(left, up(low)) for (left, _), (low, _) in zip(places[::-1], line.spread[::-1], strict=True)]
            parts.append(element("polygon", class_=f"band f{number}", points=_path(edge)))
        parts.append(element("polyline", class_=f"line s{number}", points=_path(places)))
        if len(places) <= 60:
            parts += [element("circle", class_=f"dot s{number}", cx=left, cy=top, r=2.5) for left, top in places]
        told.append(f"{line.name} from {line.points[0][1]:.3g} to {line.points[-1][1]:.3g}")
    names = [(f"s{line.style or place}", line.name) for place, line in enumerate(series, start=1) if line.points]
    return Figure(title, f"{title}: {', '.join(told)}", parts, legend=names if len(names) > 1 else ())


def _finite(line: Line) -> Line:
    kept = [i for i, point in enumerate(line.points) if all(map(math.isfinite, point))]
    spread = [line.spread[i] for i in kept] if line.spread else ()
    return replace(line, points=[line.points[i] for i in kept], spread=spread)


def _path(places: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{short(left)},{short(top)}" for left, top in places)


def bars(title: str, values: Sequence[tuple[str, float]], *, x: str) -> Figure:
    """
    Draw a bar to the right for each named value, which none of may be below 0.

    Args:
        title: What the chart shows.
        values: Name and value, from the top down.
        x: What runs to the right.
    """
    names = [shortened(name, LONGEST_NAME) for name, _ in values]
    left = 12 + round(max((text_width(name, 12) for name in names), default=0))
    height = 22 * len(values)
    scale = Axis(ticks(0, max((value for _, value in values), default=0) or 1), left, WIDTH - 44)
    parts = []
    for value in scale.ticks:
        parts += [
            element("line", class_="grid", x1=scale(value), x2=scale(value), y1=4, y2=height + 4),
            element("text", f"{value:g}", x=scale(value), y=height + 20, text_anchor="middle"),
        ]
    for i, (name, (full, value)) in enumerate(zip(names, values, strict=True)):
        middle = 22 * i + 15
        parts += [
            element("text", name, element("title", full), x=left - 6, y=middle + 4, text_anchor="end"),
            element("rect", class_="bar", x=left, y=middle - 7, width=max(0.0, scale(value) - left), height=14),
            element("text", f"{value:.3g}", x=scale(value) + 4, y=middle + 4),
        ]
    parts.append(element("text", x, x=(left + WIDTH - 44) / 2, y=height + 36, text_anchor="middle"))
    largest = max(values, key=lambda pair: pair[1], default=None)
    told = f"{title}: largest is {largest[0]} with {largest[1]:.3g}" if largest else title
    return Figure(title, told, parts, height=height + 42)


def grid(
    title: str,
    values: Sequence[Sequence[float]],
    *,
    rows: Sequence[str],
    columns: Sequence[str],
    x: str,
    y: str,
    low: float | None = None,
    high: float | None = None,
    path: Sequence[tuple[float, float]] = (),
    numbers: bool = True,
) -> Figure:
    """
    Draw a table of numbers as squares, the stronger the higher; hovering over one tells its value.

    Args:
        title: What the chart shows.
        values: Row by row, from the bottom up; what is not finite is left empty.
        rows: Name of each row; an empty one is not written.
        columns: Name of each column.
        x: What runs to the right.
        y: What runs upwards.
        low: Value of the faintest square; by default the lowest.
        high: Value of the strongest square; by default the highest.
        path: Line to draw over the squares, in columns and rows: (0, 0) is the middle of the first of both.
        numbers: Write the values into the squares.
    """
    known = [value for row in values for value in row if math.isfinite(value)]
    low, high = min(known, default=0) if low is None else low, max(known, default=1) if high is None else high
    left = 26 + round(max((text_width(name, 12) for name in rows), default=0))
    size = (WIDTH - left - RIGHT) / len(columns)
    step = min(size, TALLEST, 2 * WIDTH / len(rows))
    tall = step * len(rows)
    parts = []
    for i, row in enumerate(values):
        top = TOP + tall - step * (i + 1)
        parts.append(element("text", rows[i], x=left - 5, y=top + step / 2 + 4, text_anchor="end"))
        for j, value in enumerate(row):
            if not math.isfinite(value):
                continue
            share = min(1.0, max(0.0, (value - low) / ((high - low) or 1)))
            opacity = 0.04 + 0.96 * share
            told = element("title", f"{rows[i] or i}, {columns[j] or j}: {value:.4g}")
            parts.append(
                element(
                    "rect", told, class_="square", x=left + size * j, y=top, width=size, height=step,
                    fill_opacity=opacity,
                )
            )  # fmt: skip
            if numbers and size >= 26:
                style = "number" + (" on-strong" if opacity > STRONG else " on-middle" if opacity > MIDDLE else "")
                where = {"x": left + size * (j + 0.5), "y": top + step / 2 + 4}
                parts.append(element("text", _brief(value), class_=style, text_anchor="middle", **where))
    for j, name in enumerate(columns):
        parts.append(element("text", name, x=left + size * (j + 0.5), y=TOP + tall + 16, text_anchor="middle"))
    if path:
        places = [(left + size * (column + 0.5), TOP + tall - step * (row + 0.5)) for column, row in path]
        parts.append(element("polyline", class_="line s2 path", points=_path(places)))
        parts += [element("circle", class_="dot s2", cx=place[0], cy=place[1], r=2.5) for place in places]
        parts.append(element("circle", class_="disc end", cx=places[-1][0], cy=places[-1][1], r=4.5))
    middle = TOP + tall / 2
    parts += [
        element("text", x, x=left + (WIDTH - left - RIGHT) / 2, y=TOP + tall + 33, text_anchor="middle"),
        element("text", y, transform=f"translate(11 {short(middle)}) rotate(-90)", text_anchor="middle"),
    ]
    span = f"from {min(known):.3g} to {max(known):.3g}" if known else "nothing"
    return Figure(title, f"{title}: {span}", parts, height=round(TOP + tall + 40))


def scatter(title: str, groups: Sequence[tuple[str, Sequence[tuple[float, float, str]]]], *, x: str, y: str) -> Figure:
    """
    Draw points of up to six named groups; hovering over one tells what it is.

    Args:
        title: What the chart shows.
        groups: Name, and the place and description of each point.
        x: What runs to the right.
        y: What runs upwards.
    """
    places = [(left, up) for _, points in groups for left, up, _ in points] or [(0.0, 0.0)]
    across, upwards = axes(
        ticks(min(p[0] for p in places), max(p[0] for p in places)),
        ticks(min(p[1] for p in places), max(p[1] for p in places)),
    )
    parts = [frame(across, upwards, x, y)]
    for number, (name, points) in enumerate(groups, start=1):
        for left, up, told in points:
            mark = element("title", f"{name}: {told}")
            parts.append(element("circle", mark, class_=f"point f{number}", cx=across(left), cy=upwards(up), r=4))
    counted = ", ".join(f"{len(points)} of {name}" for name, points in groups)
    return Figure(
        title, f"{title}: {counted}", parts, legend=[(f"s{i}", name) for i, (name, _) in enumerate(groups, 1)]
    )


def _brief(value: float) -> str:
    return f"{value:.2f}" if abs(value) < 10 else f"{value:.3g}"


def reliability(title: str, bins: Sequence[Bin]) -> Figure:
    """Draw accuracy over confidence, each bin a disc of the size of its rows; on the diagonal they are equal."""
    shares = [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    across, up = axes(shares, shares)
    parts = [
        frame(across, up, "confidence", "accuracy"),
        element("line", class_="mark", x1=across(0), y1=up(0), x2=across(1), y2=up(1)),
    ]
    filled = [part for part in bins if part.rows]
    total = sum(part.rows for part in filled) or 1
    for part in filled:
        left, top = across(part.confidence), up(part.accuracy)
        told = f"{part.rows} with confidence {part.confidence:.2f}: accuracy {part.accuracy:.2f}"
        parts += [
            element("line", class_="gap", x1=left, x2=left, y1=up(part.confidence), y2=top),
            element(
                "circle",
                element("title", told),
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
    return Figure(title, told, parts)


def whisker(value: float, interval: Interval) -> Markup:
    """Draw a value from 0 to 1 and its interval, as small as a table's cell."""
    low, high = interval
    return element(
        "svg",
        element("line", class_="track", x1=0, x2=100, y1=6, y2=6),
        element("line", class_="whisker", x1=100 * low, x2=100 * high, y1=6, y2=6),
        element("circle", class_="value", cx=100 * value, cy=6, r=3),
        class_="whiskers",
        viewBox="-4 0 108 12",
        aria_hidden="true",
    )


def bar(share: float) -> Markup:
    """Draw a bar for a share from 0 to 1, as small as a table's cell."""
    return element(
        "svg",
        element("rect", class_="bar", width=100 * share, height=10),
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
    size = min(44, max(11, 480 // len(labels)))
    names = [shortened(label, LONGEST_NAME) for label in labels]
    margin = 16 + round(max(text_width(name, 10.5) for name in names))
    side = size * len(labels)
    place = {label: position for position, label in enumerate(order)}
    totals = [0] * len(labels)
    for cell in cells:
        totals[cell.true or 0] += cell.rows
    parts = [element("rect", class_="field", x=margin, y=margin, width=side, height=side)]
    for i, name in enumerate(names):
        middle = margin + size * (place[i] + 0.5)
        full = element("title", labels[i])
        down = f"translate({margin - 5} {short(middle)})"
        right = f"translate({short(middle)} {margin - 5}) rotate(-90)"
        parts += [
            element("text", name, full, class_="name true", data_label=i, transform=down),
            element("text", name, full, class_="name given", data_label=i, transform=right),
        ]
    for i, cell in enumerate(cells):
        true, given = cell.true or 0, cell.given or 0
        told = f"true {isolated(labels[true])}, given {isolated(labels[given])}: {counted(cell.rows, 'row')}"
        parts.append(
            element(
                "rect",
                element("title", told),
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
    parts.append(element("rect", class_="cursor", width=size, height=size, visibility="hidden"))
    return element(
        "svg",
        *parts,
        id="matrix",
        role="img",
        aria_label=f"Confusion matrix of {len(labels)} labels; the mistakes are listed below",
        width=margin + side + 2,
        height=margin + side + 2,
        viewBox=f"0 0 {margin + side + 2} {margin + side + 2}",
        data_size=size,
        data_margin=margin,
    )
