"""
What a batch job costs: `bertrand score` on a large file, beside the same graph on the same texts in process.

Run alone on the machine: `python benchmarks/scoring.py [MODEL] [--texts FILE]`. The texts are repeated with a row
number. Every job is measured from the start of its command to its end, between two measurements of its reference.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from rig.command import MeasurementError, add_texts, default_model, end_with, note
from rig.machine import describe
from rig.reference import Reference
from rig.table import MISSED, markdown_table, text_table, verdict
from rig.texts import read_texts

if TYPE_CHECKING:
    from collections.abc import Sequence

REFERENCE_SECONDS = 10.0  # before and after every job
LIMITS = {"none": 0.90, "sentence": 0.80}  # of the reference, by --embeddings
MOST_MEMORY, MOST_GROWTH = 700.0, 1.10  # MB at the peak, and of the larger file over the smaller


def main() -> int:
    """Measure, print, and return 1 if a promise was not kept."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path, nargs="?", default=default_model(), help="folder (default: %(default)s)")
    add_texts(parser)
    parser.add_argument("--precision", default="int8", choices=("fp32", "int8"), help="(default: %(default)s)")
    parser.add_argument("--rows", type=int, default=100_000, help="of the measured jobs (default: %(default)s)")
    parser.add_argument(
        "--memory-rows",
        type=int,
        nargs=2,
        default=(50_000, 1_000_000),
        metavar=("FEW", "MANY"),
        help="of the two jobs whose memory is compared; 0 0 leaves them out (default: 50000 1000000)",
    )
    parser.add_argument("--ray", action="store_true", help="measure a Ray cluster of this machine too")
    parser.add_argument("--markdown", action="store_true", help="print the tables in Markdown")
    options = parser.parse_args()

    show = markdown_table if options.markdown else text_table
    print(" · ".join(f"{name} {value}" for name, value in describe().items()))
    reference = Reference(options.model, options.precision)
    texts = read_texts(options.texts, reference.classifier.encoder)
    ids = reference.encode(texts)
    table = [["job", "rows", "rows_s", "reference", "ratio", "limit", "kept", "peak MB", "output MB"]]
    with tempfile.TemporaryDirectory(prefix="bertrand-scoring-") as folder:
        source = _write(Path(folder) / "in.csv", texts, options.rows)
        for engine, (embeddings, limit) in itertools.product(("local", "ray")[: 1 + options.ray], LIMITS.items()):
            note(f"--engine {engine} --embeddings {embeddings}, {options.rows} rows")
            hidden = embeddings != "none"
            before = reference.rate(ids, REFERENCE_SECONDS, hidden=hidden)
            seconds, peak, size = _run(source, options.model, options.precision, embeddings, engine)
            rate = (before + reference.rate(ids, REFERENCE_SECONDS, hidden=hidden)) / 2
            ratio = options.rows / seconds / rate
            table.append(
                [
                    f"CSV to Parquet, embeddings {embeddings}, {engine}",
                    str(options.rows),
                    f"{options.rows / seconds:.0f}",
                    f"{rate:.0f}",
                    *(verdict(ratio, limit, at_most=False) if engine == "local" else (f"{ratio:.3f}", "", "")),
                    f"{peak:.0f}",
                    f"{size:.1f}",
                ]
            )
        print(show(table))
        print(f"reading alone: {_reading(source):.0f} rows/s, twice in a job: once to survey, once to score")
        memory = [["rows", "peak MB", "limit", "kept"]]
        few = 0.0
        for rows in filter(None, options.memory_rows):
            note(f"memory of {rows} rows")
            _, peak, _ = _run(
                _write(Path(folder) / "in.csv", texts, rows), options.model, options.precision, "none", "local"
            )
            limit = min(MOST_MEMORY, few * MOST_GROWTH or MOST_MEMORY)
            memory.append([str(rows), *verdict(peak, limit, at_most=True, digits=0)])
            few = few or peak
        if len(memory) > 1:
            print(show(memory))
    return int(any(MISSED in row for row in (*table, *memory)))


def _write(path: Path, texts: Sequence[str], rows: int) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["row", "text"])
        writer.writerows(enumerate(itertools.islice(itertools.cycle(texts), rows)))
    return path


def _reading(source: Path) -> float:
    """Return how many rows a second are read and cut into windows, in a process of its own: `scoring` is this file."""
    code = """
import sys, time
from scoring.parts import windows
from scoring.source import survey
found = survey(sys.argv[1], text_column="text")
started = time.perf_counter()
rows = sum(window.rows.num_rows for window in windows(found.batches(), "none"))
print(rows / (time.perf_counter() - started))
"""
    command = [sys.executable, "-c", code, str(source)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)  # noqa: S603


def _run(source: Path, model: Path, precision: str, embeddings: str, engine: str) -> tuple[float, float, float]:
    """Run a job; return its seconds, the memory at its peak and the size of its output, both in MB."""
    out = source.with_name("out.parquet")
    command = ["score", source, out, "--model", model, "--precision", precision]
    command += ["--embeddings", embeddings, "--engine", engine]
    started = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", "bertrand", *map(str, command)])  # noqa: S603
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise MeasurementError(f"the job ended with exit code {process.returncode}")
    return seconds, usage.ru_maxrss / 1024, out.stat().st_size / 1e6


if __name__ == "__main__":
    end_with(main)
