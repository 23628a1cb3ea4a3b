"""Is there a vector for each token? How much the vectors of a word differ from sentence to sentence."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from bertrand.options import add_max_tokens, add_study, add_text_column, announce_study, study_folder

if TYPE_CHECKING:
    import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("model", metavar="MODEL", help="model folder, fine-tuned checkpoint, or base model")
    parser.add_argument(
        "corpus", type=Path, metavar="CORPUS", help=".txt with a sentence a line, or a file of sentences"
    )
    parser.add_argument("--base", help="what MODEL was fine-tuned from (default: what its train.json says)")
    parser.add_argument(
        "--use",
        action="append",
        default=[],
        metavar='"a *word* in a sentence"',
        help="find the uses of the same word in CORPUS that are nearest to this one; may be repeated",
    )
    add_max_tokens(parser)
    add_text_column(parser)
    add_study(parser, minutes=10)


def run(options: argparse.Namespace) -> int:
    """Measure, and say what came of it."""
    out = study_folder(options, "context", options.corpus)
    from training.study import context

    record = context.study(
        options.model,
        options.corpus,
        out,
        base=options.base,
        uses=options.use,
        max_tokens=options.max_tokens,
        text_column=options.text_column,
        seed=options.seed,
        minutes=options.minutes,
        resume=options.resume,
    )
    announce_study(options, record, context.report(record).answer, out)
    return 0
