"""report.html: what a person reads of a model, complete in itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from training import charts, confusion
from training.charts import Line
from training.settings import CHOOSING_ROWS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from markupsafe import Markup

    from inference.artifact import Manifest
    from training.gates import Gate
    from training.metrics import Measured
    from training.svg import Figure

ABSTAINING = (0.0, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)  # thresholds that the report has figures of
WORST = 20  # confusions whose texts are told without a click
MORE = 300  # confusions that are listed without their texts

templates = Environment(
    loader=PackageLoader("training"),
    autoescape=select_autoescape(["html"]),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def probability(value: float, digits: int = 2) -> str:
    """Return a probability in so many digits, or in as many more as show that it is below 1."""
    shown = f"{value:.{digits}g}"
    return probability(value, digits + 1) if value < 1 <= float(shown) else shown


def _plural(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _learnt(run: Mapping[str, Any]) -> str:
    """Return what a run learnt from: rows, and names of labels where they were learnt as texts (`training.few`)."""
    names = run.get("cross_validation", {}).get("names", 0)
    rows = _plural(run["train_rows"]["count"] - names, "row")
    return f"{rows} and the names of {_plural(names, 'label')}" if names else rows


def _chooses(run: Mapping[str, Any]) -> bool:
    """Say whether the development rows of a run were enough to choose the epoch by."""
    return bool(run["dev_rows"]["count"] >= CHOOSING_ROWS)


def _decided(run: Mapping[str, Any] | None) -> str:
    """Return what the development rows of a run decided."""
    trials = (run or {}).get("search", {}).get("trials", ())
    settings = f"the settings, the best of {_plural(len(trials), 'trial')}" if trials else ""
    what = [settings, "the epoch" if not run or _chooses(run) else "", "the calibration"]
    *others, last = filter(None, what)
    return f"{', '.join(others)} and {last}" if others else last


templates.filters["percent"] = lambda share: f"{100 * share:.1f}\N{NO-BREAK SPACE}%"
templates.filters["thousands"] = lambda count: f"{count:,.0f}"
templates.filters["plural"] = _plural
templates.filters["probability"] = probability


templates.filters["learnt"] = _learnt
templates.filters["chooses"] = _chooses
templates.filters["decided"] = _decided


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
    measured = {name: one for name, one in measured.items() if len(one.rows)}
    name = headline(measured)
    data = run.get("data") if run else None
    counts = data["label_counts"] if data else {}
    if name and not data:
        counts = {label.label: label.support for label in measured[name].metrics.labels}
    return templates.get_template("report.html").render(
        manifest=manifest,
        measured=measured,
        gates=gates,
        run=run,
        final=final(run),
        data=data,
        counts=counts,
        main=name,
        best=measured[name] if name else None,
        speed=speed(gates),
        chosen=chosen_epoch(run),
        curves=_curves(run),
        confused=_confused(measured[name]) if name else None,
        calibrated=_calibrated(manifest, measured[name]) if name else None,
        charts=charts,
    )


def headline(measured: Mapping[str, Measured]) -> str | None:
    """Return the rows to judge a model by: those that nothing was chosen on, where there are any."""
    return next((name for name in ("test", "data", "dev") if name in measured), next(iter(measured), None))


def speed(gates: Sequence[Gate]) -> dict[str, float]:
    """Return texts a second on one core by precision; empty where it was not measured."""
    timed = next((gate.measured for gate in gates if gate.name == "int8_speed"), {})
    suffix = "_texts_per_second"
    return {name.removesuffix(suffix): value for name, value in timed.items() if name.endswith(suffix)}


def chosen_epoch(run: Mapping[str, Any] | None) -> dict[str, float] | None:
    """Return the epoch whose weights the model has."""
    return next((epoch for epoch in run["history"] if epoch["epoch"] == run["chosen_epoch"]), None) if run else None


def final(run: Mapping[str, Any] | None) -> dict[str, float] | None:
    """Return how a run ended with all rows, those that chose the epoch too (`training.final`); None if it did not."""
    return run.get("final") if run else None


def _curves(run: Mapping[str, Any] | None) -> list[Figure | Markup]:
    chosen = chosen_epoch(run)
    if not run or not chosen:
        return []

    def line(name: str, figure: str) -> Line:
        return Line(name, [(epoch["epoch"], epoch[figure]) for epoch in run["history"] if figure in epoch])

    losses = [line("training loss", "loss"), line("development loss", "dev_loss")]
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
    several = manifest.problem_type == "multi_label"
    confidence = measured.probabilities.max(axis=1)
    every = measured.answered(np.quantile(confidence, np.linspace(0, 1, 101)).tolist())
    curve = Line("precision", [(100 * p.coverage, 100 * p.precision) for p in every if p.precision is not None])
    return {
        "diagrams": diagrams,
        "answered": measured.answered(ABSTAINING),
        "abstains": None if several or not manifest.thresholds else measured.answered(manifest.thresholds[:1])[0],
        "curve": charts.lines("What abstaining gains", [curve], x="answered, %", y="right, %"),
    }
