"""Draw a few rows of every label, for experiments with few examples."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from bertrand.options import add_columns

if TYPE_CHECKING:
    import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("data", type=Path, metavar="DATA", help="labelled sentences: .csv, .tsv, .jsonl or .parquet")
    parser.add_argument("--rows-per-label", type=int, required=True, metavar="N", help="rows to draw of every label")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="gets the drawn rows (.csv, .jsonl)")
    parser.add_argument("--rest", type=Path, metavar="FILE", help="gets the others, without copies of the drawn ones")
    parser.add_argument("--seed", type=int, default=0, help="same data, N and seed: same rows (default: %(default)s)")
    add_columns(parser)
    parser.add_argument("--multi-label", action="store_true", help="a sentence may have several labels, joined by |")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")


def run(options: argparse.Namespace) -> int:
    """Draw, write, and say how many of each label."""
    from training.files import sample

    drawn = sample(
        options.data,
        options.out,
        rows_per_label=options.rows_per_label,
        seed=options.seed,
        rest=options.rest,
        text_column=options.text_column,
        label_column=options.label_column,
        multi_label=options.multi_label,
    )
    if options.json:
        print(json.dumps(drawn.to_json(), ensure_ascii=False))
        return 0
    counts = drawn.counts
    print(f"{options.out}: {len(drawn.drawn)} rows, {_span(list(counts.values()))} of each of {len(counts)} labels")
    if options.rest:
        print(f"{options.rest}: the other {len(drawn.rest)} rows")
    if drawn.copies:
        said = (
            "1 row that repeats a drawn one is"
            if drawn.copies == 1
            else f"{drawn.copies} rows that repeat a drawn one are"
        )
        print(f"{said} left out")
    for label in drawn.short:
        print(f"{label!r} has fewer than {options.rows_per_label} different texts: all {counts[label]} were drawn")
    return 0


def _span(counts: list[int]) -> str:
    low, high = min(counts), max(counts)
    return str(low) if low == high else f"{low} to {high}"
