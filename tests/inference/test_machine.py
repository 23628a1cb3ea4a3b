"""The CPUs that a container may use, read from files as the kernel writes them, and who gets them first."""

import os
import threading

import pytest

from inference.machine import LOWEST_NICENESS, NICENESS, cpu_count, memory_limit, step_aside, step_back

CORES = len(os.sched_getaffinity(0))


def written(files, folder):
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(content + "\n")
    return folder


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, CORES),
        ({"cpu.max": "max 100000"}, CORES),
        ({"cpu.max": "100000 100000"}, 1),
        ({"cpu.max": "50000 100000"}, 1),
        ({"cpu.max": "150000 100000"}, min(2, CORES)),
        ({"cpu.max": "6400000 100000"}, CORES),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, CORES),
        ({"cpu/cpu.cfs_quota_us": "100000", "cpu/cpu.cfs_period_us": "100000"}, 1),
    ],
)
def test_the_quota_of_the_cgroup_bounds_the_cores(tmp_path, files, expected):
    assert cpu_count(written(files, tmp_path)) == expected


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, None),
        ({"memory.max": "max"}, None),
        ({"memory.max": "536870912"}, 536_870_912),
        ({"memory/memory.limit_in_bytes": "536870912"}, 536_870_912),
        ({"memory/memory.limit_in_bytes": "9223372036854771712"}, None),
    ],
)
def test_the_limit_of_the_cgroup_bounds_the_memory(tmp_path, files, expected):
    assert memory_limit(written(files, tmp_path)) == expected


def test_only_the_thread_that_steps_aside_waits_for_all_others(monkeypatch):
    """Where the policy is not allowed, the lowest weight of the ordinary one comes nearest to it."""
    seen = []

    def work():
        step_aside()
        thread = threading.get_native_id()
        seen.append((os.sched_getscheduler(thread), os.getpriority(os.PRIO_PROCESS, thread)))

    def forbidden(*_):
        raise PermissionError

    def in_a_thread():
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()

    before = os.sched_getscheduler(0)
    niceness = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    in_a_thread()
    monkeypatch.setattr(os, "sched_setscheduler", forbidden)
    in_a_thread()

    assert seen == [(os.SCHED_IDLE, niceness), (before, LOWEST_NICENESS)]
    assert os.sched_getscheduler(0) == before


def niceness_after(work):
    """Run work in a thread of its own and return its niceness then."""
    seen = []

    def run():
        work()
        seen.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return seen


def test_only_the_thread_that_steps_back_is_put_behind_others():
    before = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    assert niceness_after(step_back) == [max(before, NICENESS)]
    assert os.getpriority(os.PRIO_PROCESS, threading.get_native_id()) == before


def test_a_process_that_is_nicer_than_that_stays_so():
    """`nice -n 19 bertrand score`: going back to less is a raise, which an ordinary user may not."""

    def work():
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), LOWEST_NICENESS)
        step_back()

    assert niceness_after(work) == [LOWEST_NICENESS]


@pytest.mark.parametrize("step", [step_back, step_aside])
def test_a_thread_works_on_where_nothing_of_this_is_allowed(monkeypatch, step):
    """A sandbox may forbid every such call; a thread that died of it would leave its work undone."""

    def forbidden(*_):
        raise PermissionError

    for name in ("setpriority", "sched_setscheduler"):
        monkeypatch.setattr(os, name, forbidden)

    assert niceness_after(step) == [os.getpriority(os.PRIO_PROCESS, threading.get_native_id())]
