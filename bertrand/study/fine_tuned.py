"""The options of studies of a fine-tuned model and labelled sentences."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from bertrand.options import add_columns, add_study, announce_study, study_folder

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Mapping


def add_subject(parser: argparse.ArgumentParser, *, minutes: float) -> None:
    """Declare the options; `minutes` is the study's time where none is given."""
    parser.add_argument("model", type=Path, metavar="MODEL", help="model folder, or a checkpoint")
    parser.add_argument("data", type=Path, metavar="DATA", help="labelled sentences that it has not learnt from")
    parser.add_argument("--train", type=Path, help="what it learnt from (default: the file it says, if that is here)")
    parser.add_argument("--base", help="what it was fine-tuned from (default: what it says)")
    add_columns(parser)
    add_study(parser, minutes=minutes)


def run_study(
    options: argparse.Namespace,
    name: str,
    study: Callable[..., dict[str, Any]],
    report: Callable[[Mapping[str, Any]], Any],
) -> int:
    """Measure, and say what came of it."""
    out = study_folder(options, name, options.data)
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
