"""
What the choices of `inference` are worth: texts a second of one model, in process, each choice beside its reference.

Run alone on the machine: `python benchmarks/throughput.py [MODEL] [--texts FILE]`. Prints the median of three rounds.
"""

from __future__ import annotations

import argparse
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from bertrand import example
from inference import Classifier
from inference.machine import cpu_count
from training.checkpoint import Checkpoint
from training.data import read_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    from numpy.typing import NDArray

ROUNDS = 3


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "model", type=Path, nargs="?", default=Path("models/demo"), help="model folder (default: %(default)s)"
    )
    parser.add_argument(
        "--texts", type=Path, default=example.TRAIN, help="rows to run (default: the bundled sentences)"
    )
    options = parser.parse_args()

    import torch

    torch.set_num_threads(1)
    texts = [row.text for row in read_rows(options.texts, label_column=None)][:1024]
    classifier = Classifier.load(options.model)
    checkpoint = Checkpoint.load(str(options.model / "checkpoint"))
    arrival = [item.ids for item in classifier.encoder.encode(texts)]  # type: ignore[union-attr]
    by_length = sorted(arrival, key=len)

    def run(ids: Sequence[NDArray[np.int64]], size: int, threads: int = 1) -> None:
        batches = [ids[start : start + size] for start in range(0, len(ids), size)]
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(classifier.engine.run, batches))

    cores = cpu_count()
    rows: list[tuple[str, Callable[[], object]]] = [
        ("PyTorch, one text a call, 1 core", lambda: checkpoint.run(texts)),
        ("ONNX, one text a call, 1 core", lambda: run(arrival, 1)),
        ("ONNX, 8 texts in arrival order, 1 core", lambda: run(arrival, 8)),
        ("ONNX, 8 texts of similar length, 1 core", lambda: run(by_length, 8)),
        ("ONNX, 32 texts of similar length, 1 core", lambda: run(by_length, 32)),
        (f"ONNX, 8 texts of similar length, {cores} threads", lambda: run(by_length, 8, cores)),
    ]
    print(f"{len(texts)} texts of {sum(map(len, arrival)) / len(texts):.1f} tokens on average, {options.model}")
    run(by_length, 8)  # warm-up
    reference = 0.0
    for name, work in rows:
        rate = len(texts) / statistics.median(_seconds(work) for _ in range(ROUNDS))
        reference = reference or rate
        print(f"{name:45} {rate:7.0f} texts/s   {rate / reference:5.2f}")


def _seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
