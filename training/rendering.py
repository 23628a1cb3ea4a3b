"""The templates of reports, cards and studies, and how they write numbers and texts."""

from __future__ import annotations

import re

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup, escape

from training import wording

templates = Environment(
    loader=PackageLoader("training"),
    autoescape=select_autoescape(["html"]),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def code(text: object) -> str:
    """Return Markdown that shows a text as it is, whatever it holds."""
    line = " ".join(str(text).split())
    fence = "`" * (1 + max(map(len, re.findall("`+", line)), default=0))
    padding = " " if line.startswith("`") or line.endswith("`") else ""
    return f"{fence}{padding}{line}{padding}{fence}"


def prose(text: object) -> str:
    """Return Markdown in which nothing of a text is a mark."""
    return re.sub(r"([\\`*_\[\]<>|#&~$])", r"\\\1", " ".join(str(text).split()))


def coded(text: str) -> Markup:
    """Escape a text for a page; what stands between backticks is shown as code."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))  # noqa: S704  escaped


templates.filters |= {
    "code": code,
    "coded": coded,
    "counted": wording.counted,
    "percent": wording.percent,
    "probability": wording.probability,
    "prose": prose,
    "thousands": lambda count: f"{count:,.0f}",
}
