"""Make a model folder of a fine-tuned Transformers checkpoint."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from bertrand import example
from bertrand.options import add_columns

if TYPE_CHECKING:
    import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="sequence classifier: a folder, or a hub id")
    parser.add_argument("--out", type=Path, required=True, help="model folder to make, such as models/tickets")
    parser.add_argument(
        "--data",
        type=Path,
        help="labelled rows to prove and measure it on (default: the bundled sentences, to prove only)",
    )
    add_columns(parser)
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def run(options: argparse.Namespace) -> int:
    """Export and say what came of it."""
    from bertrand.train import announce, summary
    from training.finished import export

    manifest = export(
        options.checkpoint,
        options.out,
        data=options.data or example.TRAIN,
        measured=options.data is not None,
        text_column=options.text_column,
        label_column=options.label_column,
    )
    if options.json:
        print(json.dumps(summary(manifest, options.out)))
    else:
        announce(manifest, options.out)
    return 0
