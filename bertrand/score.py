"""Label every row of a file of any size: CSV, TSV, JSONL or Parquet, on all cores, safe to kill and resume."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from bertrand.options import add_precision, add_text_column

if TYPE_CHECKING:
    import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    formats = ("csv", "tsv", "jsonl", "parquet")
    parser.add_argument("input", metavar="INPUT", help="file, folder, glob or URL to read; - is standard input")
    parser.add_argument(
        "output",
        metavar="OUTPUT",
        help="file or URL to write, or with / at its end a folder of parts; - is standard output",
    )
    parser.add_argument("--model", type=Path, required=True, metavar="MODEL", help="model folder")
    add_text_column(parser)
    parser.add_argument("--input-format", choices=formats, help="where the ending does not tell it")
    parser.add_argument("--output-format", choices=formats, help="where the ending does not tell it")
    add_precision(parser)
    parser.add_argument(
        "--engine",
        default="local",
        choices=("local", "ray"),
        help="this machine, or a Ray cluster (default: %(default)s)",
    )
    parser.add_argument(
        "--ray-address",
        metavar="HOST:PORT",
        help="head of the cluster, or auto for the one that this machine is in (default: RAY_ADDRESS, or a cluster of "
        "this machine alone)",
    )
    parser.add_argument("--threads", type=int, metavar="N", help="cores to use (default: all that there are)")
    parser.add_argument("--scores", action="store_true", help="add every label that the model gives, best first")
    parser.add_argument("--embeddings", default="none", choices=("none", "sentence", "tokens"), help="vectors to add")
    parser.add_argument("--dtype", default="float32", choices=("float32", "float16"), help="of their numbers")
    parser.add_argument("--prefix", default="", help="put before the name of every added column")
    parser.add_argument("--resume", action="store_true", help="go on with the job that was interrupted")
    parser.add_argument(
        "--max-error-rate",
        type=float,
        default=1.0,
        metavar="SHARE",
        help="of rows without an answer: with more, nothing is written and the exit code is 1 (default: %(default)s)",
    )
    parser.add_argument("--metrics-file", type=Path, metavar="FILE", help="write figures for Prometheus to this file")
    parser.add_argument("--json", action="store_true", help="print the summary as JSON")


def run(options: argparse.Namespace) -> int:
    """Score and say what came of it; exit 1 if more rows failed than are allowed to."""
    from dataclasses import fields

    from inference.errors import InputError
    from scoring.job import Job, score

    if options.json and options.output == "-":
        raise InputError("--json goes to standard output, and so do the rows; name a file for one of them")
    given = vars(options)
    summary = score(Job(**{field.name: given[field.name] for field in fields(Job)}))
    if options.json:
        print(json.dumps(summary))
    else:
        failed = sum(summary["errors"].values())
        told = f", {failed} without an answer ({_listing(summary['errors'])})" if failed else ""
        print(
            f"{summary['rows']} rows{told}; {summary['rows_per_second']:.0f} rows/s for {summary['seconds']:.1f} s",
            file=sys.stderr,
        )
    return 0 if summary["complete"] else 1


def _listing(errors: dict[str, int]) -> str:
    return ", ".join(f"{name}: {count}" for name, count in errors.items())
