"""What this process may use of the machine."""

from __future__ import annotations

import math
import os
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")
CPUINFO = Path("/proc/cpuinfo")

INT8_DOT_PRODUCTS = {"avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm"}  # x86, then Arm


def cpu_count(cgroup: Path = CGROUP) -> int:
    """
    Return how many cores this process may keep busy: the least of its affinity and its cgroup's quota.

    A container limited to 2 CPUs on a 64-core host has 2; libraries that look at the host start 64 threads.
    """
    cores = len(os.sched_getaffinity(0))
    quota = _quota(cgroup)
    return cores if quota is None else max(1, min(cores, math.ceil(quota)))


def multiplies_int8(cpuinfo: Path = CPUINFO) -> bool:
    """
    Return whether every core has instructions for dot products of 8-bit integers.

    Without them int8 gains little, and on x86 ONNX Runtime adds pairs of products in 16 bits, which overflow: its
    answers differ from those that the gates of a model were measured on.
    """
    try:
        lines = cpuinfo.read_text().splitlines()
    except OSError:
        return False
    cores = [line.partition(":")[2].split() for line in lines if line.startswith(("flags", "Features"))]
    return bool(cores) and all(INT8_DOT_PRODUCTS.intersection(core) for core in cores)


def _quota(cgroup: Path) -> float | None:
    """Read the CPU quota in cores: cpu.max of cgroup v2, or cfs_quota of v1; None where there is none."""
    try:
        quota, period = (cgroup / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            quota = (cgroup / "cpu" / "cpu.cfs_quota_us").read_text().strip()
            period = (cgroup / "cpu" / "cpu.cfs_period_us").read_text().strip()
        except OSError:
            return None
    if quota == "max" or int(quota) <= 0:
        return None
    return int(quota) / int(period)
