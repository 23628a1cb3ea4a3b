"""
What the choices of `inference` are worth: texts a second of one model, in process, each choice beside its reference.

Run alone on the machine: `python benchmarks/throughput.py [MODEL] [--texts FILE]`. Prints the median of five rounds in
which the choices take turns.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # `training` is the package, not the script

from bertrand import example
from inference import Classifier
from inference.artifact import Artifact
from inference.machine import cpu_count
from training.checkpoint import Checkpoint
from training.data import read_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    from numpy.typing import NDArray

ROUNDS = 5


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
    artifact = Artifact.open(options.model)
    fp32 = Classifier.load(options.model, precision="fp32")
    checkpoint = Checkpoint.load(str(options.model / "checkpoint"))
    arrival = [item.ids for item in fp32.encoder.encode(texts)]  # type: ignore[union-attr]
    by_length = sorted(arrival, key=len)

    def run(classifier: Classifier, ids: Sequence[NDArray[np.int64]], size: int, threads: int = 1) -> None:
        batches = [ids[start : start + size] for start in range(0, len(ids), size)]
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(classifier.engine.run, batches))

    cores = cpu_count()
    rows: dict[str, Callable[[], object]] = {
        "PyTorch, one text a call, 1 core": lambda: checkpoint.run(texts),
        "fp32, one text a call, 1 core": lambda: run(fp32, arrival, 1),
        "fp32, 8 texts in arrival order, 1 core": lambda: run(fp32, arrival, 8),
        "fp32, 8 texts of similar length, 1 core": lambda: run(fp32, by_length, 8),
        "fp32, 32 texts of similar length, 1 core": lambda: run(fp32, by_length, 32),
        f"fp32, 8 texts of similar length, {cores} threads": lambda: run(fp32, by_length, 8, cores),
    }
    if "int8" in artifact.manifest.precisions:
        int8 = Classifier.load(options.model, precision="int8")
        rows |= {
            "int8, one text a call, 1 core": lambda: run(int8, arrival, 1),
            "int8, 8 texts of similar length, 1 core": lambda: run(int8, by_length, 8),
            f"int8, 8 texts of similar length, {cores} threads": lambda: run(int8, by_length, 8, cores),
        }
    print(f"{len(texts)} texts of {sum(map(len, arrival)) / len(texts):.1f} tokens on average, {options.model}")
    seconds: dict[str, list[float]] = {name: [] for name in rows}
    for _ in range(1 + ROUNDS):
        for name, work in rows.items():
            seconds[name].append(_seconds(work))
    rates = {name: len(texts) / statistics.median(measured[1:]) for name, measured in seconds.items()}  # [0]: warm-up
    reference = next(iter(rates.values()))
    for name, rate in rates.items():
        print(f"{name:45} {rate:7.0f} texts/s   {rate / reference:5.2f}")


def _seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
