"""What this process may use of the machine."""

from __future__ import annotations

import contextlib
import ctypes
import math
import os
import platform
import sys
import threading
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")
CPUINFO = Path("/proc/cpuinfo")

UNLIMITED = 2**60  # bytes: version 1 of cgroups says so much where there is no limit

NICENESS = 10  # of 0 to 19: a thread weighs a tenth of an ordinary one
LOWEST_NICENESS = 19

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # as in malloc.h
KEPT_BYTES = 2**26  # of each thread: several times what a forward pass of 256 tokens holds at a time (MiniLM)

INT8_DOT_PRODUCTS = {"avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm"}  # x86, then Arm


def cpu_count(cgroup: Path = CGROUP) -> int:
    """
    Return how many cores this process may keep busy: the least of its affinity and its cgroup's quota.

    A container limited to 2 CPUs on a 64-core host has 2; libraries that look at the host start 64 threads.
    """
    cores = len(os.sched_getaffinity(0))
    quota = _quota(cgroup)
    return cores if quota is None else max(1, min(cores, math.ceil(quota)))


def memory_limit(cgroup: Path = CGROUP) -> int | None:
    """Return the bytes that a container may take, by its cgroup of v2 or v1; None where nothing limits it."""
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        try:
            limit = (cgroup / name).read_text().strip()
        except OSError:
            continue
        return int(limit) if limit.isdigit() and int(limit) < UNLIMITED else None
    return None


def step_back() -> None:
    """
    Let the calling thread compute only where nobody else wants to: for work that keeps every core busy for long.

    Who accepts, refuses and answers requests needs a core seldom, but at once. On Linux alone a thread has a niceness
    of its own (sched(7)).
    """
    if sys.platform == "linux":
        _be_nice(NICENESS)


def step_aside() -> None:
    """
    Let the calling thread compute only where no other thread on the machine wants to: for work that nobody waits for.

    A thread of the policy SCHED_IDLE makes way at once for any that wakes up (sched(7)); coming back takes a privilege.
    """
    if sys.platform == "linux":
        try:
            os.sched_setscheduler(threading.get_native_id(), os.SCHED_IDLE, os.sched_param(0))
        except OSError:  # a sandbox may forbid it
            _be_nice(LOWEST_NICENESS)


def keep_freed_memory() -> None:
    """
    Have the allocator keep what a forward pass frees for the next one, in each thread; it works with glibc alone.

    By itself it gives blocks of this size back to the system, which then fills them with zeros page by page, again and
    again: 20,000 times a second were seen (mallopt(3)).
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(M_TRIM_THRESHOLD, KEPT_BYTES)
        libc.mallopt(M_MMAP_THRESHOLD, KEPT_BYTES // 2)


def give_back_freed_memory() -> None:
    """
    Have the allocator return to the system what nobody uses any more, of every thread; it works with glibc alone.

    What `keep_freed_memory` has it keep is torn into pieces in the long run, and more is asked for: a job of hours
    would grow for hours (malloc_trim(3)).
    """
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)


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


def _be_nice(niceness: int) -> None:
    """Give the calling thread at least this niceness: of one that was started with more it is not taken back."""
    thread = threading.get_native_id()
    # A sandbox may forbid it; a thread that cannot be put behind others still has its work to do.
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, thread, max(niceness, os.getpriority(os.PRIO_PROCESS, thread)))


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
