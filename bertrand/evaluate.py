"""Measure a model folder, or a PyTorch checkpoint, on labelled sentences."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from bertrand.options import add_columns, add_precision

if TYPE_CHECKING:
    import argparse

    from training.metrics import Answered


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "model", type=Path, metavar="MODEL", help="model folder, or a checkpoint such as models/x/checkpoint"
    )
    parser.add_argument("data", type=Path, metavar="DATA", help="labelled sentences: .csv, .tsv, .jsonl or .parquet")
    add_precision(parser)
    add_columns(parser)
    parser.add_argument("--json", action="store_true", help="print everything as JSON")


def run(options: argparse.Namespace) -> int:
    """Measure and print."""
    from training.finished import evaluate

    metrics = evaluate(
        options.model,
        options.data,
        precision=options.precision,
        text_column=options.text_column,
        label_column=options.label_column,
    )
    if options.json:
        print(json.dumps(metrics.to_json(), ensure_ascii=False))
        return 0
    width = max(len("label"), *(len(label.label) for label in metrics.labels))
    print(f"{'label':{width}}  precision  recall      F1   rows")
    for label in metrics.labels:
        print(f"{label.label:{width}}  {label.precision:9.4f}  {label.recall:6.4f}  {label.f1:6.4f}  {label.support:5}")
    print(
        f"\naccuracy {metrics.accuracy:.4f}, macro-F1 {metrics.macro_f1:.4f}, "
        f"calibration error (ECE) {metrics.ece:.4f} over {metrics.rows} rows, by {told_graph(metrics.graph)}"
    )
    if metrics.answered:
        print(f"it {told_answers(metrics.answered)}")
    for count, actual, given in metrics.mistakes():
        print(f"{count:5} of {actual} taken for {given}")
    return 0


def told_graph(graph: str | None) -> str:
    """Name what has answered."""
    return "PyTorch" if graph == "PyTorch" else f"the {graph} graph"


def told_answers(answered: Answered) -> str:
    """Say what a model does that abstains."""
    right = f", {answered.precision:.2%} of them right" if answered.precision is not None else ""
    return (
        f"answers {answered.coverage:.2%} of the rows{right}: those whose best label reaches {answered.threshold:.4f}; "
        "all other figures are of every row's best label"
    )
