"""What a person reads of a model: report.html, complete in itself, and the model card."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from inference.artifact import Manifest
    from training.gates import Gate
    from training.metrics import Metrics

_templates = Environment(
    loader=PackageLoader("training"),
    autoescape=select_autoescape(["html"]),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def page(
    manifest: Manifest,
    created: str,
    metrics: Mapping[str, Metrics],
    gates: Sequence[Gate],
    run: Mapping[str, Any] | None,
) -> str:
    """
    Return report.html.

    Args:
        manifest: The model.
        created: When it was made, ISO 8601.
        metrics: By the name of the rows they were measured on.
        gates: What was proved.
        run: The record of the fine-tuning run; None for a checkpoint that was made elsewhere.
    """
    return _templates.get_template("report.html").render(
        manifest=manifest, created=created, metrics=metrics, gates=gates, run=run
    )


def card(
    manifest: Manifest, metrics: Mapping[str, Metrics], gates: Sequence[Gate], run: Mapping[str, Any] | None
) -> str:
    """Return the model card, README.md, in the hub's format; the arguments are those of `page`."""
    return _templates.get_template("card.md").render(manifest=manifest, metrics=metrics, gates=gates, run=run)
