"""The `bertrand` command: reads the command line, runs a subcommand, turns errors into one line and an exit code."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import traceback
from typing import TYPE_CHECKING, NoReturn

from bertrand import demo, evaluate, export, predict, serve, train, verify

if TYPE_CHECKING:
    from collections.abc import Sequence

COMMANDS = {
    "demo": demo,
    "train": train,
    "export": export,
    "verify": verify,
    "evaluate": evaluate,
    "predict": predict,
    "serve": serve,
}
OK, CHECK_FAILED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code: 0, 1 (a check failed) or 2 (bad usage or input)."""
    os.environ.setdefault("BENTOML_DO_NOT_TRACK", "true")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # one core encodes 60,000 texts a second
    options = _parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, _stop)  # so that what is half-done is cleared away, as with Ctrl-C
    try:
        code: int = COMMANDS[options.command].run(options)
        sys.stdout.flush()
    except KeyboardInterrupt:
        print("bertrand: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # the reader of our output has seen enough, as with `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK
    except Exception as error:  # noqa: BLE001  the last place where one can become a line for a person
        if options.debug:
            traceback.print_exc()
        return _report(error)
    return code


def _report(error: Exception) -> int:
    from inference.errors import BertrandError, InputError

    message = " ".join(str(error).split())
    if isinstance(error, BertrandError):
        print(f"bertrand: {message}", file=sys.stderr)
        known_input = isinstance(error, InputError) or type(error).__name__ == "ArtifactError"
        return BAD_INPUT if known_input else CHECK_FAILED
    if isinstance(error, OSError) and error.strerror:
        place = f"{error.filename}: " if error.filename else ""
        print(f"bertrand: {place}{error.strerror}", file=sys.stderr)
        return BAD_INPUT
    print(f"bertrand: unexpected {type(error).__name__}: {message}; --debug shows where", file=sys.stderr)
    return BAD_INPUT


def _stop(number: int, _: object) -> NoReturn:
    raise SystemExit(128 + number)


def _parser() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--debug", action="store_true", help="show the traceback of an error")
    parser = argparse.ArgumentParser(
        prog="bertrand", description="Labelled sentences to a served BERT classifier, proved faithful on the way."
    )
    parser.add_argument("--version", action=_Version)
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, module in COMMANDS.items():
        text = (module.__doc__ or "").strip().partition("\n")[0]
        subparser = subparsers.add_parser(name, parents=[common], help=text, description=text)
        module.add_arguments(subparser)
    return parser


class _Version(argparse.Action):
    """`--version`; asks for the number only when it is wanted, because that is slow."""

    def __init__(self, option_strings: Sequence[str], dest: str) -> None:
        super().__init__(option_strings, dest, nargs=0, help="say which version this is")

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from importlib.metadata import version

        parser.exit(message=f"bertrand {version('bertrand')}\n")


if __name__ == "__main__":
    sys.exit(main())
