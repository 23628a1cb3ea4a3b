"""List, switch, verify and remove the models that lie side by side in a folder."""

from __future__ import annotations

import argparse
import json
import os
import shlex
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from inference.versions import Version, Versions

ACTIONS = """what there is to do:
  list               say what there is, and which model is served; looks for files without reading them
  use NAME           have `current` lead to this model, if it is whole and answers; a running service takes it up
                     within seconds and loses no request
  verify [NAME ...]  check every file by content and have each model answer (default: all of them)
  remove NAME ...    delete models, but never the one that `current` leads to

NAME is that of a folder, such as tickets-2; for use and verify also a version id, or its first four digits or more.
`bertrand models use OLD` is the way back from `bertrand models use NEW`."""
NAMES = {  # how many: at least, at most, in words
    "list": (0, 0, "no name"),
    "use": (1, 1, "the name of one model"),
    "verify": (0, None, "any number of names"),
    "remove": (1, None, "one name or more"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = ACTIONS
    parser.add_argument("action", choices=tuple(NAMES), metavar="ACTION", help="list, use, verify or remove")
    parser.add_argument("names", nargs="*", metavar="NAME", help="name of a model's folder, not its path")
    parser.add_argument(
        "--models",
        type=Path,
        default=_usual_folder(),
        metavar="DIR",
        help="where the models lie (default: beside BERTRAND_MODEL if that is called current, else models; here: "
        "%(default)s)",
    )
    parser.add_argument("--json", action="store_true", help="print everything as JSON")


def run(options: argparse.Namespace) -> int:
    """Do it; exit 1 if a model is broken that was to be used or verified."""
    from inference.errors import InputError
    from inference.versions import Versions

    least, most, words = NAMES[options.action]
    count = len(options.names)
    if count < least or (most is not None and count > most):
        raise InputError(f"models {options.action} takes {words}, {count} given; `bertrand models list` shows them")
    actions: dict[str, Callable[[Versions, argparse.Namespace], int]] = {
        "list": _list,
        "use": _use,
        "verify": _verify,
        "remove": _remove,
    }
    return actions[options.action](Versions(options.models), options)


def _usual_folder() -> Path:
    """Return where the link lies that is served: in a container that is /models."""
    served = Path(os.environ.get("BERTRAND_MODEL", "").strip())
    return served.parent if served.name == "current" else Path("models")


def _list(versions: Versions, options: argparse.Namespace) -> int:
    models, current = versions.all(), versions.current()
    if options.json:
        found = {"models": [_as_json(model) for model in models], "current": asdict(current)}
        print(json.dumps({"folder": str(versions.root)} | found))
        return 0
    rows = [("", "folder", "name", "version", "created", "default", "accuracy", "size", "state"), *map(_row, models)]
    for line in _table(rows) if models else [f"{versions.root}: no models yet; `bertrand train` makes one"]:
        print(line)
    notes = {
        "missing": "is not there; `bertrand models use NAME` makes it" if models else "",
        "nowhere": f"leads to {current.target}, which is not there; `bertrand models use NAME` mends that",
        "elsewhere": f"leads to {current.target}, which is none of these",
        "no_link": "is a folder or file of its own, not a link to one of these",
    }
    if note := notes.get(current.state):
        print(f"\n{_shown(f'{versions.root}/current {note}')}")
    return 0


def _use(versions: Versions, options: argparse.Namespace) -> int:
    done = versions.use(options.names[0])
    if options.json:
        answer = {
            "changed": done.changed,
            "before": asdict(done.before),
            "folder": done.folder,
            "version": done.version,
        }
        print(json.dumps(answer))
    elif not done.changed:
        print(_shown(f"{versions.root}/current is {done.folder} ({done.version}) already"))
    else:
        print(_shown(f"{versions.root}/current: {done.before} -> {done.folder} ({done.version})"))
        if done.before.model is not None:
            place = [] if versions.root == _usual_folder() else ["--models", str(versions.root)]
            print(f"back: {_shown(shlex.join(['bertrand', 'models', 'use', done.before.model, *place]))}")
    return 0


def _verify(versions: Versions, options: argparse.Namespace) -> int:
    from inference.errors import ArtifactError, InputError
    from inference.versions import prove

    names = [versions.find(name) for name in options.names] if options.names else versions.names()
    if not names:
        raise InputError(f"{versions.root}: no models to verify; is it the right folder?")
    outcomes: list[dict[str, Any]] = []
    for name in dict.fromkeys(names):
        version = error = None
        try:
            version = prove(versions.root / name).version
        except (ArtifactError, OSError) as problem:
            error = _one_line(problem)
        outcomes.append({"folder": name, "version": version, "passed": error is None, "error": error})
        if not options.json:
            print(_shown(f"passed  {name}: version {version}" if error is None else f"FAILED  {name}: {error}"))
    passed = all(outcome["passed"] for outcome in outcomes)
    if options.json:
        print(json.dumps({"folder": str(versions.root), "passed": passed, "models": outcomes}))
    return 0 if passed else 1


def _remove(versions: Versions, options: argparse.Namespace) -> int:
    removed = versions.remove(options.names)
    if options.json:
        print(json.dumps({"removed": removed}))
    else:
        print(_shown(f"{versions.root}: removed {', '.join(removed)}"))
    return 0


def _as_json(model: Version) -> dict[str, Any]:
    manifest, accuracy = model.manifest, model.accuracy
    fields = ("name", "version", "created", "precisions", "default_precision")
    return {
        "folder": model.folder,
        "current": model.served,
        **{field: getattr(manifest, field, None) for field in fields},
        "accuracy": accuracy and {"rows": accuracy[0], "value": accuracy[1]},
        "bytes": model.size,
        "error": model.error and _one_line(model.error),
    }


def _row(model: Version) -> tuple[str, ...]:
    manifest, accuracy = model.manifest, model.accuracy
    told: tuple[str, ...] = ("-",) * 4
    if manifest is not None:
        told = manifest.name, manifest.version, manifest.created, manifest.default_precision
    return (
        "*" if model.served else "",
        model.folder,
        *map(str, told),
        f"{accuracy[1]:.4f} {accuracy[0]}" if accuracy else "-",
        f"{model.size / 1e6:.1f} MB",
        f"broken: {_one_line(model.error)}" if model.error else "complete",
    )


def _table(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    rows = [[_shown(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()


def _one_line(problem: object) -> str:
    return " ".join(str(problem).split())


def _shown(text: str) -> str:
    """Return a text whose names may hold anything that a file's name may, as a terminal can show it."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)
