"""Inline SVG: elements, axes and figures that take their colours from the page around them and say what they show."""

from __future__ import annotations

import math
import re
import unicodedata
from dataclasses import dataclass
from typing import TYPE_CHECKING

from markupsafe import Markup

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

WIDTH, HEIGHT = 400, 250  # units of a chart, which are pixels where there is room for them
LEFT, RIGHT, TOP, BOTTOM = 52, 14, 12, 40  # margins; the left one at least
TICK_SIZE = 12.0  # of the letters, as the page's style has it
LETTER, CAPITAL, WIDE_LETTER = 0.59, 0.75, 1.0  # widths of most letters, as a part of their size


@dataclass(frozen=True)
class Axis:
    """Values to places along one side of a chart."""

    ticks: Sequence[float]  # the first and the last are its ends
    start: float
    end: float
    scale: Callable[[float], float] = float  # math.log10 for one whose steps are factors

    def __call__(self, value: float) -> float:
        """Return the place of a value."""
        low, high = self.scale(self.ticks[0]), self.scale(self.ticks[-1])
        return self.start + (self.end - self.start) * (self.scale(value) - low) / ((high - low) or 1)


@dataclass(frozen=True)
class Figure:
    """A titled drawing; in a page it takes the page's colours, as a file it brings its own."""

    title: str
    told: str  # what is to be seen, in words
    parts: Sequence[Markup]
    legend: Sequence[tuple[str, str]] = ()  # class of the line, and its name
    width: int = WIDTH
    height: int = HEIGHT

    def __html__(self) -> str:
        keys = [
            element("span", _key(style, y=6, view="0 0 26 12"), " ", name, class_="key") for style, name in self.legend
        ]
        drawn = element(
            "svg",
            *self.parts,
            class_="chart",
            viewBox=f"0 0 {self.width} {self.height}",
            role="img",
            aria_label=self.told,
        )
        return element("figure", element("figcaption", element("b", self.title), *keys), drawn)

    def file(self, css: str) -> str:
        """Return the figure as a file of its own, with its title and legend in it; `css` holds its colours."""
        head = 26 + 18 * len(self.legend)
        rows = [
            element("g", _key(style, y=0), element("text", name, x=34, y=4), transform=f"translate(8 {36 + 18 * i})")
            for i, (style, name) in enumerate(self.legend)
        ]
        return element(
            "svg",
            element("title", self.title),
            element("desc", self.told),
            element("style", Markup(css)),  # noqa: S704  our own
            element("rect", class_="paper", width=self.width, height=self.height + head),
            element("text", self.title, class_="title", x=8, y=18),
            *rows,
            element("g", *self.parts, transform=f"translate(0 {head})"),
            xmlns="http://www.w3.org/2000/svg",
            viewBox=f"0 0 {self.width} {self.height + head}",
            width=2 * self.width,
            height=2 * (self.height + head),
            role="img",
        )


def _key(style: str, *, y: float, view: str = "") -> Markup:
    line = element("line", class_=f"line {style}", x1=0, x2=26, y1=y, y2=y)
    return element("svg", line, viewBox=view, aria_hidden="true") if view else line


def axes(
    x_ticks: Sequence[float], y_ticks: Sequence[float], *, x_scale: Callable[[float], float] = float
) -> tuple[Axis, Axis]:
    """Return the two axes of a chart; what stands at the ticks of the upright one has room beside the axis's name."""
    left = max(LEFT, 24 + max(text_width(f"{value:g}", TICK_SIZE) for value in y_ticks))
    return Axis(x_ticks, left, WIDTH - RIGHT, x_scale), Axis(y_ticks, HEIGHT - BOTTOM, TOP)


def frame(across: Axis, up: Axis, x_name: str, y_name: str) -> Markup:
    """Draw what stands around the values: ticks, grid and the names of the axes."""
    floor, middle = HEIGHT - BOTTOM, (TOP + HEIGHT - BOTTOM) / 2
    parts = []
    for value in up.ticks:
        parts += [
            element("line", class_="grid", x1=across.start, x2=across.end, y1=up(value), y2=up(value)),
            element("text", f"{value:g}", x=across.start - 6, y=up(value) + 4, text_anchor="end"),
        ]
    for value in across.ticks:
        parts += [
            element("line", class_="grid", x1=across(value), x2=across(value), y1=floor, y2=floor + 4),
            element("text", f"{value:g}", x=across(value), y=floor + 17, text_anchor="middle"),
        ]
    parts += [
        element("text", x_name, x=(across.start + across.end) / 2, y=HEIGHT - 5, text_anchor="middle"),
        element("text", y_name, transform=f"translate(11 {short(middle)}) rotate(-90)", text_anchor="middle"),
    ]
    return Markup("").join(parts)


def ticks(low: float, high: float) -> list[float]:
    """Return about five round numbers whose first and last enclose the range."""
    if low == high:
        low, high = min(low, 0), max(high, 0) or 1  # a share of 1 has no place above it
    step = 10 ** math.floor(math.log10((high - low) / 4))
    step *= next(factor for factor in (1, 2, 5, 10) if (high - low) / (step * factor) <= 5)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(number * step, 10) for number in range(first, last + 1)]


def element(name: str, *children: str | Markup, **attributes: str | float) -> Markup:
    """Return an element; text and attributes are escaped, and `class_` is `class`, `data_x` is `data-x`."""
    written = Markup("").join(
        Markup(' {}="{}"').format(key.rstrip("_").replace("_", "-"), value if isinstance(value, str) else short(value))
        for key, value in attributes.items()
    )
    inner = Markup("").join(children)
    return Markup("<{0}{1}>{2}</{0}>").format(name, written, inner)


def short(value: float) -> str:
    """Return a coordinate, to a hundredth."""
    return f"{value:.2f}".rstrip("0").rstrip(".")


def text_width(text: str, size: float) -> float:
    """
    Return about how wide a text is in a sans-serif face, and rather more than less.

    Args:
        text: A line of it.
        size: Of the letters, as CSS has it.
    """
    return size * sum(_letter_width(letter) for letter in text)


def _letter_width(letter: str) -> float:
    if unicodedata.combining(letter):
        return 0.0
    if unicodedata.east_asian_width(letter) in "WF":
        return 1.0
    return WIDE_LETTER if letter in "mwMW@%" else CAPITAL if letter.isupper() else LETTER


def shortened(name: str, most: int) -> str:
    """Return a name of at most so many characters: names that begin alike mostly end differently, so both ends stay."""
    if len(name) <= most:
        return name
    end = (most - 1) // 2
    return f"{name[: most - 1 - end]}…{name[len(name) - end :]}"


def isolated(text: str) -> str:
    """Return a text in Unicode's isolates (UAX 9): of whatever script, what stands beside it keeps its order."""
    return f"\u2068{text}\u2069"


def file_name(title: str) -> str:
    """Return a title as the name of a file, without ending."""
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")
