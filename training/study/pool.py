"""Several processes of one thread each: small models train faster so than one at a time on all cores."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import TYPE_CHECKING, Any

from inference.machine import cpu_count

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

PR_SET_PDEATHSIG = 1  # prctl(2)


class Pool:
    """Worker processes, one a core; they end with the block, or with the process that made them, however it ends."""

    def __init__(self) -> None:
        self.size = cpu_count()
        self._executor = ProcessPoolExecutor(
            self.size, mp_context=multiprocessing.get_context("spawn"), initializer=_begin, initargs=(os.getpid(),)
        )

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *_: object) -> None:
        processes = list((self._executor._processes or {}).values())
        self._executor.shutdown(wait=False, cancel_futures=True)
        for process in processes:
            process.terminate()
            process.join()

    def run(
        self, work: Callable[..., Any], tasks: Sequence[tuple[Any, ...]], **options: Any
    ) -> Iterator[tuple[int, Any]]:
        """
        Do every task; give the number of each and what came of it, in the order in which they end.

        Args:
            work: A function of a module; called with what a task holds.
            tasks: The first one begins first.
            options: Of `work`, for every task.
        """
        futures = {self._executor.submit(work, *task, **options): number for number, task in enumerate(tasks)}
        for future in as_completed(futures):
            yield futures[future], future.result()


def _begin(parent: int) -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before we could ask to be told
        os._exit(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is told to all processes; the first one ends the others
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    import torch
    import transformers

    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
