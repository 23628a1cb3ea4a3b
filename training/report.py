"""report.html: what a person reads of a model, complete in itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from training import charts, confusion
from training.charts import Line
from training.facts import Facts
from training.rendering import templates

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from markupsafe import Markup

    from inference.artifact import Manifest
    from training.gates import Gate
    from training.metrics import Answered, Measured
    from training.svg import Figure

ABSTAINING = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)  # thresholds that the report has figures of
WORST = 20  # confusions whose texts are told without a click
MORE = 300  # confusions that are listed without their texts


def page(
    manifest: Manifest, measured: Mapping[str, Measured], gates: Sequence[Gate], run: Mapping[str, Any] | None
) -> str:
    """
    Return report.html.

    Args:
        manifest: The model.
        measured: By the name of the rows.
        gates: What was proved.
        run: The record of the fine-tuning run, with what was found in its data; None for a checkpoint that was made
            elsewhere.
    """
    facts = Facts.of(manifest, measured, gates, run)
    best = facts.best
    counts = facts.data["label_counts"] if facts.data else {}
    if best and not facts.data:
        counts = {label.label: label.support for label in best.metrics.labels}
    return templates.get_template("report.html").render(
        facts=facts,
        manifest=manifest,
        gates=gates,
        run=run,
        best=best,
        counts=counts,
        curves=_curves(facts),
        epoch_figures=_epoch_figures(run["history"]) if run else {},
        confused=_confused(best) if best else None,
        calibrated=_calibrated(manifest, best) if best else None,
        given=best.decided.sum(axis=0).tolist() if best else [],
        charts=charts,
    )


def _epoch_figures(history: Sequence[Mapping[str, float]]) -> dict[str, str]:
    """Return the figures that any epoch has, and the titles of their columns."""
    titles = {
        "loss": "Training objective",
        "dev_loss": "Development loss",
        "dev_accuracy": "Accuracy",
        "dev_macro_f1": "Macro-F1",
    }
    return {name: title for name, title in titles.items() if any(name in epoch for epoch in history)}


def _curves(facts: Facts) -> list[Figure | Markup]:
    run, chosen = facts.run, facts.chosen
    if not run or not chosen:
        return []

    def line(name: str, figure: str) -> Line:
        return Line(name, [(epoch["epoch"], epoch[figure]) for epoch in run["history"] if figure in epoch])

    losses = [line("training objective", "loss"), line("development loss", "dev_loss")]
    scores = [line("development accuracy", "dev_accuracy"), line("development macro-F1", "dev_macro_f1")]
    scores, losses = ([line for line in lines if line.points] for lines in (scores, losses))
    return [
        charts.lines("Loss", losses, x="epoch", y="loss", mark=chosen["epoch"]),
        *([charts.lines("Scores", scores, x="epoch", y="score", mark=chosen["epoch"])] if scores else []),
    ]


def _confused(measured: Measured) -> dict[str, Any]:
    """Return the mistakes and, of a model that gives one label, the matrix and what its script needs."""
    cells = confusion.cells(measured)
    mistakes = [cell for cell in cells if cell.mistaken]
    found: dict[str, Any] = {"worst": mistakes[:WORST], "more": mistakes[WORST : WORST + MORE], "count": len(mistakes)}
    if measured.metrics.confusion is None:
        return found
    alike = confusion.order(measured.metrics.confusion)
    by_name = sorted(range(len(measured.labels)), key=lambda label: measured.labels[label].casefold())
    return found | {
        "matrix": charts.heat_map(measured.labels, alike, cells),
        "data": {
            "labels": measured.labels,
            "support": [label.support for label in measured.metrics.labels],
            "orders": {"confusion": alike, "name": by_name},
            "cells": [
                [cell.true, cell.given, cell.rows, [[e.text, round(e.probability, 3)] for e in cell.examples]]
                for cell in cells
            ],
        },
    }


def _calibrated(manifest: Manifest, measured: Measured) -> dict[str, Any]:
    if manifest.temperature == 1:
        diagrams = [charts.reliability("Reliability", measured.bins)]
    else:
        diagrams = [
            charts.reliability("Before: temperature 1", measured.bins_before),
            charts.reliability(f"After: temperature {manifest.temperature:.3g}", measured.bins),
        ]
    confidence = measured.probabilities.max(axis=1)
    every = measured.answered(np.quantile(confidence, np.linspace(0, 1, 101)).tolist())
    curve = Line("precision", [(100 * p.coverage, 100 * p.precision) for p in every if p.precision is not None])
    return {
        "diagrams": diagrams,
        "answered": _steps(measured.answered(ABSTAINING)),
        "curve": charts.lines("What abstaining gains", [curve], x="answered, %", y="right, %"),
    }


def _steps(answered: Sequence[Answered]) -> list[Answered]:
    """Return those that answer other rows than the one before."""
    return [one for i, one in enumerate(answered) if not i or one.coverage != answered[i - 1].coverage]
