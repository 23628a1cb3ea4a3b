"""Prove again that a model folder is whole and answers as its checkpoint does, whatever the batch and precision."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from bertrand import example
from bertrand.options import add_text_column, column

if TYPE_CHECKING:
    import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("model", type=Path, metavar="MODEL", help="model folder")
    parser.add_argument("--data", type=Path, help="real rows to prove it on (default: the bundled sentences)")
    add_text_column(parser)
    parser.add_argument(
        "--label-column",
        type=column,
        help="column of the label, to compare the accuracy of int8 and fp32 too (default: none)",
    )
    parser.add_argument("--json", action="store_true", help="print the outcome as JSON")


def run(options: argparse.Namespace) -> int:
    """Run the gates; exit 1 if one fails."""
    from training.finished import verify

    outcomes = verify(
        options.model,
        data=options.data or example.TRAIN,
        text_column=options.text_column,
        label_column=options.label_column,
    )
    passed = all(gate.passed for gate in outcomes)
    if options.json:
        print(
            json.dumps({"model": str(options.model), "passed": passed, "gates": [gate.to_json() for gate in outcomes]})
        )
    else:
        for gate in outcomes:
            print(f"{'passed' if gate.passed else 'FAILED'}  {gate.name}: {gate.summary()}")
    return 0 if passed else 1
