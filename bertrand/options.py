"""Options that several commands have."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse


def add_columns(parser: argparse.ArgumentParser) -> None:
    """Declare which columns of a file hold sentence and label."""
    parser.add_argument("--text-column", default="text", help="column of the sentence (default: %(default)s)")
    parser.add_argument("--label-column", default="label", help="column of the label (default: %(default)s)")
