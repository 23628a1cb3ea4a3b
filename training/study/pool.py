"""Several processes of one thread each: small models train faster so than one at a time on all cores."""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import threading
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing.connection import wait
from typing import TYPE_CHECKING, Any

from inference.machine import cpu_count

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

# Loaded once, by the process that all workers are copies of: it takes seconds, and memory.
LOADED = ("torch", "transformers.models.auto.modeling_auto", "transformers.trainer")


class Pool:
    """Worker processes, one a core; they end with the block, or with the process that made them, however it ends."""

    def __init__(self) -> None:
        self.size = cpu_count()
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([*LOADED])
        self._executor = ProcessPoolExecutor(self.size, mp_context=context, initializer=_begin)

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


def _begin() -> None:
    threading.Thread(target=_end_with_the_first, daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is told to all processes; the first one ends the others
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    import torch
    import transformers

    gc.freeze()  # each training looks through all objects for garbage, and these stay
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()


def _end_with_the_first() -> None:
    """End when the process ends that the workers work for, even if it was killed."""
    if first := multiprocessing.parent_process():
        wait([first.sentinel])
        os._exit(1)
