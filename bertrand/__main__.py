"""The `bertrand` command: reads the command line, runs a subcommand, turns errors into one line and an exit code."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from bertrand import (
    check_data,
    compare,
    demo,
    evaluate,
    export,
    models,
    predict,
    pretrain,
    sample,
    score,
    serve,
    study,
    train,
    verify,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import ModuleType

COMMANDS: dict[str, ModuleType] = {
    "demo": demo,
    "train": train,
    "pretrain": pretrain,
    "check-data": check_data,
    "sample": sample,
    "export": export,
    "verify": verify,
    "evaluate": evaluate,
    "compare": compare,
    "predict": predict,
    "score": score,
    "serve": serve,
    "models": models,
    "study": study,
}
OK, CHECK_FAILED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code: 0, 1 (a check failed) or 2 (bad usage or input)."""
    os.environ.setdefault("BENTOML_DO_NOT_TRACK", "true")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # one core encodes 60,000 texts a second
    _open_closed()
    options = _parse(list(sys.argv[1:] if arguments is None else arguments))
    signal.signal(signal.SIGTERM, _stop)  # so that what is half-done is cleared away, as with Ctrl-C
    before, sys.unraisablehook = sys.unraisablehook, _stop_still
    try:
        code: int = options.run(options)
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
        return _report(error, options.command)
    finally:
        sys.unraisablehook = before
    return code


def _open_closed() -> None:
    """
    Open on nothing what the caller has closed of stdin, stdout and stderr.

    Python has None in their place, and the next file that is opened would get their number: what libraries write to
    stdout would be in it.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open(mode, encoding="utf-8"))  # noqa: SIM115  to the end of the process


def _report(error: Exception, command: str) -> int:
    from inference.errors import ArtifactError, BertrandError, InputError

    message = " ".join(str(error).split())
    if isinstance(error, BertrandError):
        print(f"bertrand: {message}", file=sys.stderr)
        return BAD_INPUT if isinstance(error, InputError | ArtifactError) else CHECK_FAILED
    if isinstance(error, ModuleNotFoundError):
        group = "batch" if command == "score" else "train"
        print(
            f"bertrand: {command} needs the Python package {error.name!r}, which is not installed here; "
            f"`pip install -r requirements/{group}.txt` brings what it needs",
            file=sys.stderr,
        )
        return BAD_INPUT
    if isinstance(error, OSError) and error.strerror:
        place = f"{error.filename}: " if error.filename else ""
        print(f"bertrand: {place}{error.strerror}", file=sys.stderr)
        return BAD_INPUT
    print(f"bertrand: unexpected {type(error).__name__}: {message}; --debug shows where", file=sys.stderr)
    return BAD_INPUT


def _stop(number: int, _: object) -> NoReturn:
    raise SystemExit(128 + number)


def _stop_still(unraisable: sys.UnraisableHookArgs) -> None:
    """
    Ask once more to stop where Python let the first time pass.

    A signal's exception is lost where it comes while an object is destroyed, of which none leaves.
    """
    number = {SystemExit: signal.SIGTERM, KeyboardInterrupt: signal.SIGINT}.get(unraisable.exc_type)
    if number is None:
        sys.__unraisablehook__(unraisable)
    else:
        threading.Timer(0.1, os.kill, (os.getpid(), number)).start()


def _parse(
    arguments: Sequence[str], commands: Mapping[str, ModuleType] = COMMANDS, called: str = "bertrand"
) -> argparse.Namespace:
    if not arguments or arguments[0] not in commands:
        _overview(commands, called).parse_args(arguments)  # --help, --version, or bad usage: ends here
    name, *rest = arguments
    module = commands[name]
    if hasattr(module, "COMMANDS"):
        options = _parse(rest, module.COMMANDS, f"{called} {name}")
        options.command = name
        return options
    parser = argparse.ArgumentParser(prog=f"{called} {name}", description=module.__doc__)
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    module.add_arguments(parser)
    # Intermixed: `predict MODEL --json TEXT` is as natural as `predict --json MODEL TEXT`.
    return parser.parse_intermixed_args(rest, argparse.Namespace(command=name, run=module.run))


def _overview(commands: Mapping[str, ModuleType], called: str) -> argparse.ArgumentParser:
    width = max(map(len, commands)) + 2
    lines = [f"  {name:{width}}{(module.__doc__ or '').strip()}" for name, module in commands.items()]
    first = commands is COMMANDS
    parser = argparse.ArgumentParser(
        prog=called,
        description="Labelled sentences to a served BERT classifier, proved faithful on the way." if first else None,
        epilog="commands:\n" + "\n".join(lines) + f"\n\n`{called} COMMAND --help` tells the options of each.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    if first:
        parser.add_argument("--version", action=_Version)
    parser.add_argument("command", choices=commands, metavar="COMMAND", help="what to do")
    return parser


class _Version(argparse.Action):
    """`--version`; asks for the number only when it is wanted, because that is slow."""

    def __init__(self, option_strings: Sequence[str], dest: str) -> None:
        super().__init__(option_strings, dest, nargs=0, help="say which version this is")

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from importlib.metadata import version

        print(f"bertrand {version('bertrand')}")
        parser.exit()


if __name__ == "__main__":
    sys.exit(main())
