"""The run of a study: what it has measured so far, the time it may take, and the folder it becomes."""

from __future__ import annotations

import json
import shutil
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from inference import artifact
from training.study import page
from training.unfinished import alone, check_same

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from training.study.page import Report

FORMAT_VERSION = 1
STUDY = "study.json"
RUN = "run.json"  # settings of an unfinished run
MEASURED = "measured.jsonl"  # one line for each thing that was measured; the last may be torn by a kill
SAY_EVERY = 20.0  # seconds between two lines of progress, where there is no terminal


@dataclass
class Run:
    """A study that is being made: a folder beside `out` keeps what was measured, so that a killed one can go on."""

    study: str
    out: Path
    settings: dict[str, Any]  # what the result depends on: options, seeds, fingerprints of data and models
    minutes: float | None  # None: as long as it takes
    known: dict[str, Any] = field(default_factory=dict)
    before: float = 0.0  # seconds that earlier runs took
    started: float = field(default_factory=time.monotonic)
    _bar: Any = None
    _said: float = 0.0
    _began: float = 0.0
    _done: float = 0.0
    _total: float = 0.0

    @classmethod
    @contextmanager
    def open(
        cls, study: str, out: Path, settings: Mapping[str, Any], *, minutes: float | None, resume: bool = False
    ) -> Iterator[Run]:
        """
        Begin a study, or go on with one that was not finished; until the context ends, no other process may work on it.

        Args:
            study: Its name.
            out: Becomes the folder of the study; one that is there is replaced in one step.
            settings: All that the result depends on, as JSON has it.
            minutes: How long it may take, what earlier runs took included.
            resume: Go on with the unfinished study of the same `out`; start anew where there is none.

        Raises:
            ArtifactError: `out` is something other than a study.
            DataError: `resume`, and the unfinished one is of other settings, data or models.
            InputError: Another process makes the study of the same `out`.
        """
        artifact.check_replaceable(out, mark=STUDY, kind="study")
        kept: dict[str, Any] = json.loads(json.dumps({"study": study} | dict(settings)))
        run = cls(study, out, kept, minutes)
        with alone(run.work):
            run._begin(resume=resume)
            yield run

    @property
    def work(self) -> Path:
        """The folder of the unfinished study."""
        return self.out.parent / f".{self.out.name}.study"

    @property
    def elapsed(self) -> float:
        """Seconds that this study has taken, those of earlier runs included."""
        return self.before + time.monotonic() - self.started

    @property
    def left(self) -> float:
        """Seconds that it may still take; without a budget there is no end of them."""
        return float("inf") if self.minutes is None else 60 * self.minutes - self.elapsed

    def measure(self, key: str, compute: Callable[[], Any]) -> Any:
        """
        Return what is measured under a name: as an earlier run measured it, else now.

        Args:
            key: Names it among all that the study measures.
            compute: Returns it, as JSON has it; it is kept as soon as it is known.
        """
        if key not in self.known:
            self.keep(key, compute())
        return self.known[key]

    def keep(self, key: str, value: Any) -> None:
        """Keep what was measured elsewhere under a name, as `measure` does."""
        line = json.dumps(
            {"key": key, "elapsed": round(self.elapsed, 3), "value": value}, ensure_ascii=False, allow_nan=False
        )
        with (self.work / MEASURED).open("a", encoding="utf-8") as file:
            file.write(line + "\n")
        self.known[key] = json.loads(line)["value"]

    def expect(self, cost: float) -> None:
        """Say how much work there is in all, in any unit; progress and the time that is left are told by it."""
        self._done, self._total, self._began = 0.0, cost, time.monotonic()
        if self._bar is not None:
            self._bar.close()
        self._bar = tqdm(
            total=cost,
            disable=not sys.stderr.isatty(),
            leave=False,
            bar_format="{desc}: {percentage:3.0f} % |{bar}| {elapsed}, about {remaining} left",
            desc=self.study,
        )

    def advance(self, cost: float, what: str) -> None:
        """Say that a part of the work is done: on a terminal in a bar, else in a line now and then."""
        self._done += cost
        if self._bar is None:
            return
        self._bar.update(cost)
        now = time.monotonic()
        ended = self._done - cost < self._total <= self._done
        if self._bar.disable and (now - self._said > SAY_EVERY or ended):
            self._said = now
            left = (now - self._began) * (self._total - self._done) / self._done if self._done else 0.0
            print(
                f"{self.study}: {what}; {100 * self._done / self._total:.0f} %, {clock(self.elapsed)} so far, "
                f"about {clock(max(0.0, left))} left",
                file=sys.stderr,
            )

    def say(self, message: str) -> None:
        """Tell what was decided, on stderr."""
        tqdm.write(f"{self.study}: {message}", file=sys.stderr)

    def finish(
        self,
        result: Mapping[str, Any],
        report: Callable[[Mapping[str, Any]], Report],
        *,
        files: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        """
        Write the folder of the study: study.json, study.html, and every figure as a file.

        Args:
            result: What was found.
            report: Makes the page of what study.json holds, and of nothing else.
            files: What else belongs into the folder: text by name.

        Returns:
            What study.json holds.
        """
        if self._bar is not None:
            self._bar.close()
        record: dict[str, Any] = {
            "format_version": FORMAT_VERSION,
            "study": self.study,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "minutes": {"allowed": self.minutes, "taken": round(self.elapsed / 60, 2)},
            "settings": self.settings,
            "versions": _versions(),
            "result": dict(result),
        }
        text = json.dumps(record, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
        record = json.loads(text)
        with artifact.staged(self.out, mark=STUDY, kind="study") as folder:
            (folder / STUDY).write_text(text, encoding="utf-8")
            page.write(folder, record, report(record))
            for name, content in (files or {}).items():
                (folder / name).write_text(content, encoding="utf-8")
        shutil.rmtree(self.work)
        self.say(f"wrote {self.out}/{page.PAGE} and {STUDY} after {clock(self.elapsed)}")
        return record

    def _begin(self, *, resume: bool) -> None:
        record = self.work / RUN
        if resume and record.is_file():
            self._go_on(json.loads(record.read_bytes()))
            return
        if resume:
            print("no unfinished study to resume; starting anew", file=sys.stderr)
        shutil.rmtree(self.work, ignore_errors=True)
        self.work.mkdir(parents=True)
        partial = record.with_suffix(".partial")
        partial.write_text(json.dumps(self.settings, ensure_ascii=False), encoding="utf-8")
        partial.rename(record)  # whole, whenever a kill comes

    def _go_on(self, settings: Mapping[str, Any]) -> None:
        check_same(self.out, settings, self.settings, what="study")
        file = self.work / MEASURED
        lines = file.read_bytes().split(b"\n") if file.is_file() else [b""]
        # What follows the last line's end was torn by the kill.
        for line in map(json.loads, lines[:-1]):
            self.known[line["key"]] = line["value"]
            self.before = line["elapsed"]
        if file.is_file():
            file.write_bytes(b"".join(line + b"\n" for line in lines[:-1]))
        print(f"resuming: {len(self.known)} things are measured already", file=sys.stderr)


def clock(seconds: float) -> str:
    """Return a duration as people say it: `50 s`, `3 min 20 s`, `1 h 5 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    return f"{whole // 60} min {whole % 60} s" if whole < 3600 else f"{whole // 3600} h {whole % 3600 // 60} min"


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    return {name: version(name) for name in ("torch", "transformers", "numpy")}
