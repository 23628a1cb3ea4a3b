"""Label texts from the command line or from standard input, one a line."""

from __future__ import annotations

import itertools
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from bertrand.options import add_precision

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

CHUNK = 256  # lines read before they are answered: bounds memory and fills batches


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("model", type=Path, metavar="MODEL", help="model folder")
    parser.add_argument("texts", nargs="*", metavar="TEXT", help="a sentence (default: every line of standard input)")
    add_precision(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object a text, with all scores")


def run(options: argparse.Namespace) -> int:
    """Print a line for each text: its label, or its labels joined by |; exit 2 if a text had none to give."""
    from inference import Classifier, TextError

    classifier = Classifier.load(options.model, precision=options.precision)
    texts = iter(options.texts) if options.texts else _lines()
    failed = False
    number = 0
    while chunk := list(itertools.islice(texts, CHUNK)):
        for text, result in zip(chunk, classifier.classify(chunk), strict=True):
            number += 1
            if isinstance(result, TextError):
                failed = True
                print(f"bertrand: text {number}: {result.message}", file=sys.stderr)
                error = {"code": result.code, "message": result.message}
                print(json.dumps({"status": "error", "error": error}) if options.json else "")
            elif options.json:
                answer = {
                    "status": "ok",
                    "text": text,
                    "label": result.label,
                    "score": result.score,
                    "scores": [{"label": label, "score": score} for label, score in result.scores],
                    "token_count": result.token_count,
                    "truncated": result.truncated,
                }
                print(json.dumps(answer, ensure_ascii=False))
            elif classifier.manifest.problem_type == "multi_label":
                print("|".join(label for label, _ in result.scores))
            else:
                print(result.label)
        sys.stdout.flush()
    return 2 if failed else 0


def _lines() -> Iterator[str]:
    # A byte that is not UTF-8 becomes a lone surrogate, which the encoder refuses for that line alone.
    sys.stdin.reconfigure(encoding="utf-8", errors="surrogateescape", newline="\n")  # type: ignore[union-attr]
    for line in sys.stdin:
        yield line.removesuffix("\n").removesuffix("\r")
