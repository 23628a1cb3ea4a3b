"""Why does a good start lead to a good end? The loss between start and end, and around the end, of two starts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from bertrand.options import add_columns, add_study, announce_study, study_folder

if TYPE_CHECKING:
    import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("model", type=Path, metavar="MODEL", help="model folder, or a checkpoint")
    parser.add_argument("data", type=Path, metavar="DATA", help="labelled sentences that it has not learnt from")
    parser.add_argument("--train", type=Path, help="what it learnt from (default: the file it says, if that is here)")
    parser.add_argument("--base", help="what it was fine-tuned from (default: what it says)")
    add_columns(parser)
    add_study(parser, minutes=30)


def run(options: argparse.Namespace) -> int:
    """Measure, and say what came of it."""
    out = study_folder(options, "landscape", options.data)
    from training.study.landscape import study
    from training.study.landscape_page import report

    record = study(
        options.model,
        options.data,
        out,
        train=options.train,
        base=options.base,
        minutes=options.minutes,
        seed=options.seed,
        text_column=options.text_column,
        label_column=options.label_column,
        resume=options.resume,
    )
    announce_study(options, record, report(record).answer, out)
    return 0
