"""Where did fine-tuning change the weights? Drift, likeness of representations, and layers rolled back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bertrand.study.fine_tuned import add_subject, run_study

if TYPE_CHECKING:
    import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_subject(parser, minutes=10)


def run(options: argparse.Namespace) -> int:
    """Measure, and say what came of it."""
    from training.study.layers import study
    from training.study.layers_page import report

    return run_study(options, "layers", study, report)
