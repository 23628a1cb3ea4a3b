"""Does the starting point matter, and with how little data? Learning curves of four starts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from bertrand.options import add_columns, add_max_tokens, add_study, announce_study, study_folder
from training.settings import DEFAULT_BASE

if TYPE_CHECKING:
    import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("data", type=Path, metavar="DATA", help="labelled sentences to learn from")
    parser.add_argument("--test", type=Path, help="labelled sentences to measure on (default: a fifth of DATA)")
    parser.add_argument("--base", default=DEFAULT_BASE, help="hub id, local folder, or minilm (default: %(default)s)")
    parser.add_argument("--seeds", type=int, default=3, help="runs of each start at each size (default: %(default)s)")
    add_max_tokens(parser)
    parser.add_argument(
        "--epochs", type=int, help="passes over the largest size (default: as many as there is time for)"
    )
    parser.add_argument(
        "--freeze", choices=("none", "embeddings"), help="what does not learn (default: embeddings, where pretrained)"
    )
    add_columns(parser)
    add_study(parser, minutes=40)


def run(options: argparse.Namespace) -> int:
    """Measure, and say what came of it."""
    out = study_folder(options, "init", options.data)
    from training.study.init import study
    from training.study.init_page import report

    record = study(
        options.data,
        out,
        test=options.test,
        base=options.base,
        seeds=options.seeds,
        seed=options.seed,
        max_tokens=options.max_tokens,
        epochs=options.epochs,
        freeze=options.freeze,
        minutes=options.minutes,
        text_column=options.text_column,
        label_column=options.label_column,
        resume=options.resume,
    )
    announce_study(options, record, report(record).answer, out)
    return 0
