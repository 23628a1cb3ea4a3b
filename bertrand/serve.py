"""Serve a model folder over HTTP with BentoML."""

from __future__ import annotations

import os
import socket
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse

SERVICE = "service.app:Bertrand"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options; what is not given comes from the BERTRAND_* variables."""
    parser.add_argument(
        "model",
        type=Path,
        nargs="?",
        metavar="MODEL",
        help="model folder (default: BERTRAND_MODEL, else models/current)",
    )
    add_address(parser)
    parser.add_argument("--workers", type=int, help="processes, each with its own copy of the model (default: 1)")
    parser.add_argument("--precision", choices=("auto", "fp32", "int8"), help="graph to serve (default: auto)")


def add_address(parser: argparse.ArgumentParser) -> None:
    """Declare where to listen."""
    parser.add_argument("--host", default="127.0.0.1", help="address or name to listen at (default: %(default)s)")
    parser.add_argument("--port", type=int, default=3000, help="port to listen at (default: %(default)s)")


def run(options: argparse.Namespace) -> int:
    """Check what can be checked, then become the server."""
    return start(
        options.model, host=options.host, port=options.port, workers=options.workers, precision=options.precision
    )


def start(model: Path | None, *, host: str, port: int, workers: int | None = None, precision: str | None = None) -> int:
    """
    Become the server: this process is replaced, so that signals reach it and nothing stands between.

    Raises:
        ArtifactError: the model folder cannot be served.
        InputError: a setting or the address cannot be used.
    """
    import service
    from inference.artifact import Artifact
    from service.settings import PREFIX, Settings, named

    given = {"BERTRAND_MODEL": model, "BERTRAND_WORKERS": workers, "BERTRAND_PRECISION": precision}
    os.environ |= {name: str(value) for name, value in given.items() if value is not None}
    settings = Settings.from_environment()
    # Not resolved: a link such as models/current stays one, so that it can be switched.
    folder = Path(settings.model)
    artifact = Artifact.open(folder)
    artifact.graph(artifact.precision(settings.precision))
    if settings.shadow_model is not None:
        with named("SHADOW_MODEL"):
            candidate = Artifact.open(settings.shadow_model)
            candidate.graph(candidate.precision(settings.precision))
    address = check_address(host, port)

    home = _bentoml_home(port)
    # As absolute paths: BentoML changes the directory before the service reads them.
    paths = {"MODEL": settings.model, "SHADOW_MODEL": settings.shadow_model, "API_KEYS_FILE": settings.api_keys_file}
    os.environ |= {PREFIX + name: path for name, path in paths.items() if path is not None}
    os.environ.setdefault("BENTOML_HOME", str(home))
    sys.stderr.flush()
    # The working directory of the service is where its package lies: a folder of the same name in the user's own
    # directory must not take its place.
    place = str(Path(service.__file__).parent.parent)
    command = ["-m", "bentoml", "serve", SERVICE, "--working-dir", place, "--host", address, "--port", str(port)]
    os.execv(sys.executable, [sys.executable, *command])  # noqa: S606  the same interpreter, arguments as a list


def check_address(host: str, port: int) -> str:
    """
    Return the IP address of a host, which is all that BentoML takes; of several, one of version 4.

    Raises:
        InputError: this process may not listen there now.
    """
    from inference.errors import InputError

    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        family, _, _, _, place = min(found, key=lambda each: each[0] != socket.AF_INET)
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((place[0], port, *place[2:]))
    except (OSError, OverflowError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(
            f"cannot listen at {host}:{port} ({reason}); name another --port, or an address of this machine as --host"
        ) from error
    return str(place[0])


def _bentoml_home(port: int) -> Path:
    """Return a BENTOML_HOME of this server's own: BentoML clears shared state in it whenever a server starts."""
    home = Path(tempfile.gettempdir()) / f"bertrand-{os.getuid()}-{port}"
    home.mkdir(mode=0o700, exist_ok=True)
    if home.stat().st_uid != os.getuid():
        home = Path(tempfile.mkdtemp(prefix="bertrand-"))
    return home
