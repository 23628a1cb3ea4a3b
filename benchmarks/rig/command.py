"""The edge of a benchmark: arguments that all have in common, errors to exit codes, signals."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from bertrand import example
from inference.errors import BertrandError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

MODELS = (Path("models/banking77"), Path("models/demo"))
TEXTS = (Path("../shared/data/banking77/test.csv"), example.TEST)


class MeasurementError(BertrandError):
    """What was measured is not what was meant to be: a refused request, another answer, a server that ended."""


def add_texts(parser: argparse.ArgumentParser) -> None:
    """Declare the file of texts."""
    default = next((path for path in TEXTS if path.exists()), TEXTS[-1])
    parser.add_argument(
        "--texts", type=Path, default=default, help="CSV file with a column `text` (default: %(default)s)"
    )


def default_model() -> Path:
    """Return the first of the usual models that is there."""
    return next((path for path in MODELS if path.exists()), MODELS[-1])


def note(text: str) -> None:
    """Say how far the measurement is; the figures alone go to stdout."""
    print(text, file=sys.stderr, flush=True)


def end_with(main: Callable[[], int]) -> NoReturn:
    """Run a benchmark and exit: 1 where a measurement failed, 2 where it could not be made."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # servers are ended on the way out
    try:
        sys.exit(main())
    except MeasurementError as error:
        note(f"error: {error}")
        sys.exit(1)
    except BertrandError as error:
        note(f"error: {error}")
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
