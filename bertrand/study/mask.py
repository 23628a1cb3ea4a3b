"""What did predicting masked words teach? Guesses, scores of sentences, and what more pretraining is worth."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from bertrand.options import add_columns, add_max_tokens, add_study, announce_study, study_folder

if TYPE_CHECKING:
    import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "model", metavar="MODEL", help="base model with a masked-language-model head, as pretrain makes"
    )
    parser.add_argument("corpus", type=Path, metavar="CORPUS", help=".txt with a sentence a line, or file of sentences")
    parser.add_argument("--against", help="another one, for example MODEL after further pretraining")
    parser.add_argument(
        "--guess",
        action="append",
        default=[],
        metavar='"I lost my [MASK]"',
        help="tell what the models say in the place of [MASK]; may be repeated",
    )
    parser.add_argument("--labelled", type=Path, help="labelled sentences: fine-tune MODEL and --against, and compare")
    parser.add_argument("--test", type=Path, help="labelled sentences to measure these classifiers on")
    parser.add_argument(
        "--seeds", type=int, default=3, help="classifiers of each model and number of rows (default: %(default)s)"
    )
    add_max_tokens(parser)
    add_columns(parser)
    add_study(parser, minutes=20)


def run(options: argparse.Namespace) -> int:
    """Measure, and say what came of it."""
    out = study_folder(options, "mask", options.corpus)
    from training.study import mask

    record = mask.study(
        options.model,
        options.corpus,
        out,
        against=options.against,
        guesses=options.guess,
        labelled=options.labelled,
        test=options.test,
        seeds=options.seeds,
        max_tokens=options.max_tokens,
        text_column=options.text_column,
        label_column=options.label_column,
        seed=options.seed,
        minutes=options.minutes,
        resume=options.resume,
    )
    announce_study(options, record, mask.report(record).answer, out)
    return 0
