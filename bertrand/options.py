"""Options that several commands have."""

from __future__ import annotations

import argparse
import json
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training.settings import LAST_SEED, LEAST_TOKENS, MOST_TOKENS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def add_columns(parser: argparse.ArgumentParser) -> None:
    """Declare which columns of a file hold sentence and label."""
    add_text_column(parser)
    parser.add_argument(
        "--label-column", type=column, default="label", help="column of the label (default: %(default)s)"
    )


def add_text_column(parser: argparse.ArgumentParser) -> None:
    """Declare which column of a file holds the sentence."""
    parser.add_argument(
        "--text-column", type=column, default="text", help="column of the sentence (default: %(default)s)"
    )


def column(name: str) -> str:
    """Return the name of a column as it was given; an empty one, as an unset variable of a shell makes, is an error."""
    if not name:
        raise argparse.ArgumentTypeError("is empty; expected the name of a column")
    return name


def add_precision(parser: argparse.ArgumentParser) -> None:
    """Declare which graph of a model folder answers."""
    parser.add_argument(
        "--precision",
        default="auto",
        choices=("auto", "fp32", "int8"),
        help="graph of a model folder that answers; auto: the one that `bertrand serve` takes here (default: auto)",
    )


def add_max_tokens(parser: argparse.ArgumentParser) -> None:
    """Declare how much of a sentence a study reads."""
    parser.add_argument("--max-tokens", type=int, default=128, help="longer sentences are cut (default: %(default)s)")


def add_study(parser: argparse.ArgumentParser, *, minutes: float) -> None:
    """Declare what every study takes; `minutes` is its time where none is given."""
    parser.add_argument("--out", type=Path, help="folder to make (default: studies/STUDY-DATA)")
    parser.add_argument(
        "--minutes",
        type=float,
        default=minutes,
        help="how long it may take; it chooses how much to measure by it, and says so (default: %(default)g)",
    )
    parser.add_argument("--seed", type=int, default=0, help="same seed, data and machine: same result")
    parser.add_argument("--resume", action="store_true", help="go on with the unfinished study of the same --out")
    parser.add_argument("--json", action="store_true", help="print what study.json holds")


def study_folder(options: argparse.Namespace, name: str, data: Path) -> Path:
    """
    Return the folder that a study makes.

    Raises:
        InputError: an option has a value that no study takes.
    """
    from inference.errors import InputError

    if not 0 < options.minutes < math.inf:
        raise InputError(f"--minutes is {options.minutes:g}; expected a number above 0, with an end")
    last = LAST_SEED - max(0, getattr(options, "seeds", 1) - 1)  # of several runs each has the next one
    if not 0 <= options.seed <= last:
        raise InputError(f"--seed is {options.seed}; expected a whole number from 0 to {last}")
    most = getattr(options, "max_tokens", LEAST_TOKENS)
    if not LEAST_TOKENS <= most <= MOST_TOKENS:
        raise InputError(f"--max-tokens is {most}; expected a whole number from {LEAST_TOKENS} to {MOST_TOKENS}")
    folder: Path = options.out or Path("studies") / f"{name}-{data.stem or data.name}"
    return folder


def announce_study(options: argparse.Namespace, record: Mapping[str, Any], answer: Sequence[str], out: Path) -> None:
    """Print what a study found: the sentences of its page, or with --json all of it."""
    if options.json:
        print(json.dumps(record, ensure_ascii=False))
        return
    print("\n".join(answer))
    print(f"{out}/study.html shows it", file=sys.stderr)
