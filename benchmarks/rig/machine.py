"""What the figures were measured on."""

from __future__ import annotations

import os
import platform
import re
from importlib.metadata import version
from pathlib import Path

from inference.machine import cpu_count

PACKAGES = ("onnxruntime", "tokenizers", "numpy", "bentoml", "uvicorn", "uvloop", "orjson")


def describe() -> dict[str, str]:
    """Return processor, cores, load and versions."""
    information = Path("/proc/cpuinfo").read_text()
    models = re.findall(r"^model name\s*: (.+)$", information, re.MULTILINE) or [platform.machine()]
    flags = [flag for flag in ("avx2", "avx512_vnni", "avx_vnni", "amx_int8") if re.search(rf"\b{flag}\b", information)]
    return {
        "cpu": models[0],
        "flags": " ".join(flags),
        "cores": str(cpu_count()),
        "load_before": f"{os.getloadavg()[0]:.2f}",  # of the last minute: near 0 where nothing else runs
        "python": platform.python_version(),
    } | {name: version(name) for name in PACKAGES}
