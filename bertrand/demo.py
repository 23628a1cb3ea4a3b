"""Train on the bundled example sentences and serve the result."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from bertrand import example, serve


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--out", type=Path, default=Path("models/demo"), help="model folder (default: %(default)s)")
    parser.add_argument(
        "--serve", action=argparse.BooleanOptionalAction, default=True, help="serve the model once it is trained"
    )
    serve.add_address(parser)


def run(options: argparse.Namespace) -> int:
    """Train, then serve."""
    from bertrand.train import announce
    from training.pipeline import train
    from training.settings import TrainConfig

    if options.serve:
        serve.check_address(options.host, options.port)  # now, not after minutes of training
    manifest = train(TrainConfig(), example.TRAIN, test=example.TEST, out=options.out)
    if manifest is None:
        return 0  # one of several processes: another one goes on
    announce(manifest, options.out)
    current = options.out.parent / "current"
    if not current.is_symlink() and not current.exists():
        current.symlink_to(options.out.name)  # what `bertrand serve` and `bentoml serve` take when nothing is named
    if not options.serve:
        return 0
    host = f"[{options.host}]" if ":" in options.host else options.host  # an address of version 6
    print(
        f"serving at http://{host}:{options.port}, API page at /docs; Ctrl-C stops it. Try:\n"
        f"  curl -s 'http://{host}:{options.port}/v1/analyze' -H 'content-type: application/json' "
        """-d '{"inputs": ["I was charged twice, please refund me"]}'""",
        file=sys.stderr,
    )
    return serve.start(options.out, host=options.host, port=options.port)
