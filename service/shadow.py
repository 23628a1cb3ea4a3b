"""A candidate beside the model: it labels a sample of what was answered, and nobody waits for it."""

from __future__ import annotations

import logging
import threading
from collections import deque
from dataclasses import dataclass
from random import random
from typing import TYPE_CHECKING

import numpy as np
import onnxruntime as ort

from inference.errors import TextError
from inference.machine import step_aside
from service.folder import Folder
from service.settings import named

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from inference.classifier import Classifier
    from inference.encoder import Encoded
    from service.metrics import Metrics
    from service.settings import Settings

MOST_TEXTS = 1024  # that wait for the candidate
MOST_CHARACTERS = 1_000_000  # of all of them, 4 MB at the most; a text that is longer waits alone
LOOK_EVERY = 0.02  # seconds between two looks for a text and a core to spare
END_TAKES = 5.0  # seconds that a pass is waited for at the end, at the most: it is told to stop

log = logging.getLogger("bertrand.service")


@dataclass(frozen=True, slots=True)
class Answered:
    """A text and how it was answered."""

    text: str
    labels: tuple[str, ...]  # given, the best first; of a model with one label a text, that one
    score: float | None  # probability of the best; None where no label was given
    top_k: int | None = None  # as in `Classifier.choose`: what the request asked for
    threshold: float | None = None
    max_windows: int = 1  # that were read of it


class Shadow:
    """
    The candidate of one worker process.

    Every text that was labelled is sampled by chance alone. Choosing by the text itself, as by its hash, would take
    all copies of a text or none: what people send most would count too much or not at all, however long one waits.

    A sampled text waits until a thread of the model has nothing to do, so that there is a core to spare, and is
    computed by a thread that runs only where no other wants to. Where more come than can be computed the oldest are
    dropped: no text stays longer than the next ones take to come.
    """

    def __init__(self, settings: Settings, metrics: Metrics, at_rest: Callable[[], bool]) -> None:
        """
        Load the candidate; `start` has it compared.

        Args:
            settings: Name its folder, and the share of texts it is to see.
            metrics: Take what comes of it.
            at_rest: Says whether a thread of the model has nothing to do.

        Raises:
            InputError: the folder cannot be loaded.
        """
        assert settings.shadow_model is not None, "no candidate is set"  # noqa: S101
        self._ratio = settings.shadow_ratio
        self._metrics = metrics
        self._at_rest = at_rest
        self._folder = Folder(settings.shadow_model, precision=settings.precision, role="candidate")
        with named("SHADOW_MODEL"):
            self._candidate = self._folder.load()
        self._announce()
        self._lock = threading.Lock()
        self._waiting: deque[Answered] = deque()
        self._characters = 0  # of all that wait
        self._closed = threading.Event()
        self._passes = ort.RunOptions()
        self._thread = threading.Thread(target=self._work, name="shadow", daemon=True)

    def start(self) -> None:
        """Start the thread, once `at_rest` can tell."""
        self._thread.start()

    def sample(self, count: int) -> list[int]:
        """Return which of so many texts to offer."""
        return [i for i in range(count) if random() < self._ratio]

    def offer(self, answered: Answered) -> None:
        """Take a text, at the cost of the oldest ones where too many wait; never blocks."""
        dropped = 1
        # The thread may have been put aside while it holds the lock: then the text is dropped, not waited for.
        if self._lock.acquire(blocking=False):
            try:
                dropped = self._make_room(len(answered.text))
                self._waiting.append(answered)
            finally:
                self._lock.release()
        if dropped:
            self._metrics.shadowed("dropped", dropped)

    def look(self, *, forced: bool = False) -> None:
        """Take up another candidate where one is in the folder; one that cannot be loaded is refused."""
        if forced or self._folder.changed():
            candidate = self._folder.successor(self._candidate)
            if candidate is not None:
                self._candidate = candidate
                self._announce()

    def close(self) -> None:
        """End the thread; what waits is left."""
        self._closed.set()
        self._passes.terminate = True
        self._thread.join(END_TAKES)

    def _announce(self) -> None:
        manifest, precision = self._candidate.manifest, self._candidate.precision
        self._complained = False
        self._metrics.shadow(manifest, precision)
        log.info("candidate %s %s in %s", manifest.name, manifest.version, precision)

    def _work(self) -> None:
        step_aside()
        while not self._closed.wait(LOOK_EVERY):
            try:
                while self._at_rest() and self._label_next():
                    pass
            except Exception as error:  # noqa: BLE001  a thread that ended would compare nothing more, and say nothing
                self._fail(error)

    def _label_next(self) -> bool:
        """Label the text that has waited longest and count what comes of it; False where none waits."""
        answered = self._next()
        if answered is None:
            return False
        candidate = self._candidate
        try:
            agreed, difference = compare(candidate, answered, self._score(candidate, answered))
        except Exception as error:  # noqa: BLE001  whatever it is, it is the candidate's own
            if not self._closed.is_set():
                self._fail(error)
        else:
            self._metrics.shadowed("agreed" if agreed else "differed", difference=difference)
        return True

    def _next(self) -> Answered | None:
        with self._lock:
            if self._closed.is_set() or not self._waiting:
                return None
            self._characters -= len(self._waiting[0].text)
            return self._waiting.popleft()

    def _make_room(self, characters: int) -> int:
        """Drop the oldest texts until one of this size fits, count it as there, and return how many were dropped."""
        dropped = 0
        while self._waiting and (len(self._waiting) >= MOST_TEXTS or self._characters + characters > MOST_CHARACTERS):
            self._characters -= len(self._waiting.popleft().text)
            dropped += 1
        self._characters += characters
        return dropped

    def _fail(self, error: Exception) -> None:
        self._metrics.shadowed("failed")
        if not self._complained:
            self._complained = True
            # Not its message, which might quote the text.
            log.warning("the candidate failed on a text (%s); this is told once", type(error).__name__)

    def _score(self, candidate: Classifier, answered: Answered) -> NDArray[np.float32]:
        """Return the candidate's probability of each of its labels, shape (labels,)."""
        (text,) = candidate.encoder.encode([answered.text], max_windows=answered.max_windows, offsets=False)
        if isinstance(text, TextError):
            raise ValueError(text.code)
        scores = candidate.probabilities(np.stack([self._run(candidate, window) for window in text.windows]))
        return candidate.aggregate(scores) if len(scores) > 1 else scores[0]

    def _run(self, candidate: Classifier, window: Encoded) -> NDArray[np.float32]:
        while not self._at_rest():
            if self._closed.wait(LOOK_EVERY):
                break  # the pass is told to stop before it begins
        (output,) = candidate.engine.run([window.ids], options=self._passes)
        return output.logits


def compare(candidate: Classifier, answered: Answered, scores: NDArray[np.float32]) -> tuple[bool, float | None]:
    """
    Hold what a candidate says of a text against the answer.

    Args:
        candidate: It gives labels as the request asked for them.
        answered: The text and its answer.
        scores: The candidate's probabilities, shape (labels,).

    Returns:
        Whether both give the same labels: a model with one label a text gives its best one or none, one with several
        the set of them. And by how much they differ in the probability of the best label that was answered, which is 0
        where the candidate has no such label; None where no label was answered.
    """
    (chosen,) = candidate.choose(scores[None], top_k=answered.top_k, threshold=answered.threshold)
    labels = told_labels(candidate, tuple(candidate.labels[place] for place in chosen))
    if answered.score is None:
        return not labels, None
    best = answered.labels[0]
    score = float(scores[candidate.labels.index(best)]) if best in candidate.labels else 0.0
    return set(labels) == set(answered.labels), abs(score - answered.score)


def told_labels(classifier: Classifier, given: tuple[str, ...]) -> tuple[str, ...]:
    """Return what a model says of a text by the labels it gives, best first: the best, or of several all of them."""
    return given if classifier.problem_type == "multi_label" else given[:1]
