"""The model that answers now, and its successor: loaded beside it, and put in its place between two requests."""

from __future__ import annotations

import logging
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

from service.answers import Answers
from service.batcher import Batcher
from service.folder import Folder
from service.shadow import Shadow

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from inference.classifier import Classifier
    from service.metrics import Metrics
    from service.settings import Settings

LOOK_EVERY = 1.0  # seconds between two looks at the model folder

log = logging.getLogger("bertrand.service")


class _Held:
    """A model and how many requests hold it."""

    def __init__(self, answers: Answers) -> None:
        self.answers = answers
        self.users = 0


class Models:
    """
    The model of one worker process.

    A request holds one model from its start to its end, so that an answer is of one version. A model that was replaced
    finishes what was asked of it and goes. A folder that cannot be loaded is refused: the old model keeps serving.
    """

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        """Load the model folders of the settings; whatever is wrong with them is raised."""
        self._settings = settings
        self._metrics = metrics
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._closed = False
        self._forced = False
        self._folder = Folder(settings.model, precision=settings.precision, role="model")
        classifier = self._folder.load()
        self._shadow: Shadow | None = None
        if settings.shadow_model is not None:
            self._shadow = Shadow(settings, metrics, at_rest=lambda: self.current.batcher.at_rest)
        self._current = _Held(self._answers(classifier))
        if self._shadow is not None:
            self._shadow.start()
        self._announce()
        metrics.queue(limit=settings.max_queue_tokens)
        self._watcher: threading.Thread | None = None

    @property
    def current(self) -> Answers:
        """The model that the next request gets."""
        return self._current.answers

    @contextmanager
    def use(self) -> Iterator[Answers]:
        """Hold the model for the length of one request."""
        with self._lock:
            held = self._current
            held.users += 1
        try:
            yield held.answers
        finally:
            with self._lock:
                held.users -= 1
                idle = held is not self._current and held.users == 0
            if idle:
                _retire(held.answers)

    def watch(self, also: Callable[[], None]) -> None:
        """
        Look at the model folder every second from now on, in a thread, and take up a new model.

        Args:
            also: Called with every look; for other files that may change.
        """
        self._watcher = threading.Thread(target=self._look, args=(also,), name="reload", daemon=True)
        self._watcher.start()

    def reload(self) -> None:
        """Have the folder loaded at once, whether it looks changed or not; safe in a signal handler."""
        self._forced = True
        self._wake.set()

    def close(self) -> None:
        """Compute what waits, then end the threads."""
        self._closed = True
        self._wake.set()
        if self._watcher is not None:
            self._watcher.join()
        if self._shadow is not None:
            self._shadow.close()
        self.current.batcher.close()

    def _look(self, also: Callable[[], None]) -> None:
        while not self._closed:
            self._wake.wait(LOOK_EVERY)
            self._wake.clear()
            forced, self._forced = self._forced, False
            try:
                if not self._closed and (forced or self._folder.changed()):
                    self._take_up()
                if not self._closed and self._shadow is not None:
                    self._shadow.look(forced=forced)
                also()
            except Exception:  # a thread that ended would take up no model any more, and say nothing
                self._metrics.reloaded(taken_up=False)
                log.exception("what changed could not be taken up; what served goes on")

    def _take_up(self) -> None:
        classifier = self._folder.successor(self.current.classifier)
        if classifier is None:
            self._metrics.reloaded(taken_up=False)
            return
        with self._lock:
            old, self._current = self._current, _Held(self._answers(classifier))
            idle = old.users == 0
        self._announce()
        self._metrics.reloaded(taken_up=True)
        if idle:
            _retire(old.answers)

    def _announce(self) -> None:
        classifier = self.current.classifier
        self._metrics.serve(classifier.manifest, classifier.precision)
        log.info("serving %(name)s %(version)s in %(precision)s", self.current.model)

    def _answers(self, classifier: Classifier) -> Answers:
        settings = self._settings
        batcher = Batcher(
            classifier.engine,
            self._metrics,
            threads=settings.threads,
            max_batch_tokens=settings.max_batch_tokens,
            max_queue_tokens=settings.max_queue_tokens,
        )
        return Answers(classifier, batcher, self._metrics, settings, self._shadow)


def _retire(answers: Answers) -> None:
    # In a thread: the batcher waits for its own, and nobody should wait for that.
    threading.Thread(target=answers.batcher.close, name="retire", daemon=True).start()
