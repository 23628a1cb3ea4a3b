"""Why does a good start lead to a good end? The loss between start and end, and around the end, of two starts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bertrand.study.fine_tuned import add_subject, run_study

if TYPE_CHECKING:
    import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_subject(parser, minutes=30)


def run(options: argparse.Namespace) -> int:
    """Measure, and say what came of it."""
    from training.study.landscape import study
    from training.study.landscape_page import report

    return run_study(options, "landscape", study, report)
