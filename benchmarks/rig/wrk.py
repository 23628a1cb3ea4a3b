"""Load from `wrk`: as many connections as wanted, each with one request under way all the time."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import orjson

from inference.errors import InputError
from rig.command import MeasurementError

if TYPE_CHECKING:
    from collections.abc import Sequence


TIMEOUT = 20  # seconds of one request; one that takes longer counts as an error
# A body a line. Requests are put together before the load begins, so that sending one costs next to nothing.
SCRIPT = """
local threads = 0
function setup(thread)
  thread:set("number", threads)
  threads = threads + 1
end

local requests, at = {}, 0
function init()
  for body in io.lines(%(bodies)s) do
    requests[#requests + 1] = wrk.format("POST", nil, {["content-type"] = "application/json"}, body)
  end
  at = number * 7919 %% #requests
end

function request()
  at = at %% #requests + 1
  return requests[at]
end

function done(summary, latency)
  local errors = summary.errors
  local file = io.open(%(result)s, "w")
  file:write(string.format(
    '{"requests":%%d,"microseconds":%%d,"p50":%%d,"p99":%%d,' ..
    '"errors":{"connect":%%d,"read":%%d,"write":%%d,"timeout":%%d,"status":%%d}}',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
    errors.connect, errors.read, errors.write, errors.timeout, errors.status))
  file:close()
end
"""


@dataclass(frozen=True)
class Result:
    """What wrk saw."""

    requests_per_second: float
    p50: float  # seconds
    p99: float


def require() -> str:
    """
    Return the version of wrk.

    Raises:
        InputError: it is not installed.
    """
    if not shutil.which("wrk"):
        raise InputError("wrk is missing, which makes the load; install it (on Debian: apt-get install wrk)")
    # It has no option that says it and exits well: the first line of its help does.
    done = subprocess.run(["wrk", "--version"], capture_output=True, text=True, check=False)  # noqa: S607
    return done.stdout.split("\n")[0].partition(" [")[0].removeprefix("wrk ")


def load(url: str, path: str, bodies: Sequence[bytes], *, connections: int, seconds: float) -> Result:
    """
    Send the bodies over and over; wrk stops in the middle of requests, and does not count those.

    Args:
        url: The server's, without a path.
        path: The route.
        bodies: JSON, none with a line break.
        connections: Each sends its next request when it has the answer to the last.
        seconds: Rounded, at least 1.

    Raises:
        MeasurementError: a request failed or was refused. A fast refusal is not speed.
    """
    with tempfile.TemporaryDirectory(prefix="bertrand-wrk-") as name:
        folder = Path(name)
        (folder / "bodies").write_bytes(b"\n".join(bodies) + b"\n")
        # A JSON string is a Lua string, for names such as these.
        names = {name: json.dumps(str(folder / name)) for name in ("bodies", "result")}
        (folder / "script.lua").write_text(SCRIPT % names)
        command = ["wrk", "--threads", "1", "--connections", str(connections), "--timeout", f"{TIMEOUT}s"]
        command += ["--duration", f"{max(1, round(seconds))}s", "--script", str(folder / "script.lua")]
        done = subprocess.run([*command, url + path], capture_output=True, text=True, check=False)  # noqa: S603
        if done.returncode or not (folder / "result").exists():
            raise MeasurementError(f"wrk ended with {done.returncode}: {(done.stderr or done.stdout).strip()}")
        seen = orjson.loads((folder / "result").read_bytes())
    errors = {kind: count for kind, count in seen["errors"].items() if count}
    if errors:
        counts = ", ".join(f"{count} {kind}" for kind, count in errors.items())
        raise MeasurementError(f"{path}: {seen['requests']} answers, and errors: {counts}")
    if not seen["requests"]:
        raise MeasurementError(f"{path}: no answer within {seconds:g} s; measure for longer")
    return Result(seen["requests"] / seen["microseconds"] * 1e6, seen["p50"] / 1e6, seen["p99"] / 1e6)
