"""The whole of docker-compose.yml on this machine's engine, and the load of `wrk` on it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import httpx

from tests.support import ROOT, free_port, until

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Self

TAG = "under-test"
BASE = "docker.io/library/python:3.11-slim"
HAPROXY = "docker.io/library/haproxy:2.6"
PROMETHEUS = "docker.io/prom/prometheus:v2.42.0"
REQUEST = {"inputs": "please refund my order"}
SCRIPT = """
wrk.method = "POST"
wrk.body = [[%s]]
wrk.headers["content-type"] = "application/json"
local threads = {}
function setup(thread) table.insert(threads, thread) end
function init() statuses = {} end
function response(status) statuses[status] = (statuses[status] or 0) + 1 end
function done(summary)
  local e = summary.errors
  local parts = {}
  for status, count in pairs(threads[1]:get("statuses")) do
    table.insert(parts, string.format('"%%d":%%d', status, count))
  end
  print(string.format('RESULT {"answers":{%%s},"connect":%%d,"broken":%%d,"timeout":%%d}',
    table.concat(parts, ","), e.connect, e.read + e.write, e.timeout))
end
"""


@dataclass(frozen=True)
class Engine:
    """Docker with its Compose, or podman with podman-compose."""

    name: str
    compose: tuple[str, ...]

    @classmethod
    def find(cls) -> Engine | None:
        """Return what works here."""
        for engine in (cls("docker", ("docker", "compose")), cls("podman", ("podman-compose",))):
            checks = [[engine.name, "info"], [*engine.compose, "version"]]
            if all(shutil.which(command[0]) and not _run(command, check=False).returncode for command in checks):
                return engine
        return None

    def __call__(self, *arguments: str | Path, check: bool = True, seconds: float = 900) -> str:
        """Run a command of the engine; return what it printed."""
        return _run([self.name, *map(str, arguments)], check=check, seconds=seconds).stdout

    def has(self, image: str) -> bool:
        """Whether an image is here, or can be fetched."""
        return any(
            not _run([self.name, *how, image], check=False).returncode for how in (["image", "inspect"], ["pull"])
        )

    def build(self, requirements: str = "serve", *options: str, context: Path = ROOT, tag: str = TAG) -> str:
        """Build the image of a set of requirements, and return its name."""
        image = "bertrand" if requirements == "serve" else f"bertrand-{requirements}"
        # Under podman's own name, so that it is not looked for in a registry; in Docker's format, since that of the OCI
        # has no health check.
        name, form = f"{image}:{tag}", ()
        if self.name == "podman":
            name, form = f"localhost/{name}", ("--format", "docker")
        self("build", *form, "--tag", name, "--build-arg", f"REQUIREMENTS={requirements}", *options, context)
        return name


class Wrk:
    """Callers who each send a request as soon as they have the answer to their last; used with `with`."""

    def __init__(self, url: str, folder: Path, *, connections: int = 8) -> None:
        script = folder / "wrk.lua"
        script.write_text(SCRIPT % json.dumps(REQUEST))
        options = ["--threads", "1", "--connections", str(connections), "--timeout", "10s", "--duration", "120s"]
        self._command = ["wrk", *options, "--script", str(script), f"{url}/v1/classify"]
        self.answers: Counter[int] = Counter()
        self.broken = self.refused_connections = self.timeouts = 0

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(self._command, stdout=subprocess.PIPE, text=True)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.send_signal(signal.SIGINT)
        output, _ = self._process.communicate(timeout=60)
        seen = json.loads(next(line for line in output.splitlines() if line.startswith("RESULT"))[7:])
        self.answers.update({int(status): count for status, count in seen["answers"].items()})
        self.refused_connections, self.broken, self.timeouts = seen["connect"], seen["broken"], seen["timeout"]


class Stack:
    """A project folder as an operator has it: the compose file, deploy/ and models/, on ports of its own."""

    def __init__(self, engine: Engine, folder: Path) -> None:
        self.engine = engine
        self.folder = folder
        shutil.copy(ROOT / "docker-compose.yml", folder)
        shutil.copytree(ROOT / "deploy", folder / "deploy")
        self.models = folder / "models"
        self.models.mkdir()
        port, dashboard_port = free_port(), free_port()
        self.url = f"http://127.0.0.1:{port}"
        self.project = f"bertrand-test-{port}"
        own = {name: value for name, value in os.environ.items() if not name.startswith(("BERTRAND_", "COMPOSE_"))}
        self._variables = own | {
            "COMPOSE_PROJECT_NAME": self.project,
            "BERTRAND_TAG": TAG,
            "BERTRAND_PORT": str(port),
            "BERTRAND_DASHBOARD_PORT": str(dashboard_port),
            "BERTRAND_SHADOW_MODEL": "/models/tiny-2",
            "BERTRAND_USER": f"{os.getuid()}:{os.getgid()}",
        }

    def compose(self, *arguments: str, check: bool = True, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run a command of Compose in the project."""
        command = [*self.engine.compose, *arguments]
        return _run(command, check=check, cwd=self.folder, env=self._variables | variables)

    def up(self) -> None:
        """Start it, and wait until both replicas answer through HAProxy."""
        self.compose("up", "--detach", "--no-build", "--scale", "service=2")
        until(lambda: self.ready_replicas() == 2, 60)

    def down(self) -> None:
        """End it and remove all that it had."""
        self.compose("down", "--volumes")

    def replicas(self) -> list[str]:
        """Return the names of the replicas' containers."""
        names = self.engine("ps", "--format", "{{.Names}}").split()
        return sorted(name for name in names if self.project in name and "service" in name)

    def container(self, service: str) -> str:
        """Return the name of a service's only container."""
        (name,) = (name for name in self.containers() if service in name)
        return name

    def containers(self) -> list[str]:
        """Return the names of all its containers, of those that ended too."""
        return [name for name in self.engine("ps", "--all", "--format", "{{.Names}}").split() if self.project in name]

    def query(self, promql: str) -> list[tuple[dict[str, str], float]]:
        """Ask the stack's Prometheus: labels and value of each series."""
        address = "http://127.0.0.1:9090"
        found = self.engine(
            "exec", self.container("prometheus"), "promtool", "query", "instant", "--format=json", address, promql
        )
        return [(series["metric"], float(series["value"][1])) for series in json.loads(found)]

    def ready_replicas(self) -> int:
        """Return how many replicas HAProxy sends requests to."""
        try:
            if httpx.get(f"{self.url}/readyz", timeout=5).status_code != 200:
                return 0
        except httpx.TransportError:
            return 0
        figures = self.engine(
            "exec", self.replicas()[0], "python3", "-c",
            "import urllib.request as r; print(r.urlopen('http://haproxy:8404/metrics').read().decode())",
        )  # fmt: skip
        line = next(
            row for row in figures.splitlines() if row.startswith('haproxy_backend_active_servers{proxy="replicas"}')
        )
        return int(float(line.rpartition(" ")[2]))

    def versions(self, requests: int = 20) -> set[str]:
        """Return the versions of the model that so many answers name."""
        return {self.ask().json()["model"]["version"] for _ in range(requests)}

    def ask(self, **options: Any) -> httpx.Response:
        """Send one request to classify through HAProxy, on a connection of its own."""
        return httpx.post(f"{self.url}/v1/classify", json=REQUEST, timeout=30, **options)


def _run(
    command: list[str], *, check: bool = True, seconds: float = 900, **options: Any
) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=seconds, **options)
    assert not check or not done.returncode, f"{' '.join(command)}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done
