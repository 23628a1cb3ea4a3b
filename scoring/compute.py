"""Texts to answers on all cores of this machine, window after window."""

from __future__ import annotations

from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from inference.classifier import BATCH_SIZE, sentence_embedding
from inference.errors import TextError
from inference.machine import step_back

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from concurrent.futures import Future

    from numpy.typing import NDArray

    from inference.classifier import Classifier
    from inference.encoder import Encoded
    from inference.engine import Output

AHEAD = 2  # windows that are computed while the one before them is written
MISSING = TextError("text_empty", "there is no text (null)")

T = TypeVar("T")


@dataclass(frozen=True)
class Answered:
    """What the model says of the texts of a window, in their order."""

    items: list[Encoded | TextError]
    logits: NDArray[np.float32]  # shape (texts, labels); of no meaning where the item is an error
    sentences: NDArray[np.float32] | None  # shape (texts, hidden)
    tokens: list[NDArray[np.float32] | None] | None  # of each text, shape (its tokens, hidden)


class Cores:
    """A classifier that is kept busy by several threads, texts of similar length together."""

    def __init__(self, classifier: Classifier, *, threads: int, embeddings: str) -> None:
        self._classifier = classifier
        self._embeddings = embeddings
        self._pool = ThreadPoolExecutor(threads, "score", initializer=step_back)

    def answer(self, windows: Iterable[tuple[T, Sequence[object]]]) -> Iterator[tuple[T, Answered]]:
        """
        Answer windows of texts, in order; while one is written, the next are computed.

        Args:
            windows: Something to know a window by, and its texts; a text may be anything, None included.
        """
        pending: deque[tuple[T, Callable[[], Answered]]] = deque()
        for key, texts in windows:
            pending.append((key, self._begin(texts)))
            if len(pending) > AHEAD:
                key, finish = pending.popleft()
                yield key, finish()
        while pending:
            key, finish = pending.popleft()
            yield key, finish()

    def close(self) -> None:
        """End the threads, after the batch that each is at."""
        self._pool.shutdown(cancel_futures=True)

    def _begin(self, texts: Sequence[object]) -> Callable[[], Answered]:
        encoder, engine = self._classifier.encoder, self._classifier.engine
        with_tokens = self._embeddings == "tokens"
        items = encoder.encode(texts, offsets=with_tokens)  # type: ignore[arg-type]  # it says what is no text
        items = [MISSING if text is None else item for text, item in zip(texts, items, strict=True)]
        logits = np.zeros((len(texts), engine.label_count), dtype=np.float32)
        sentences: NDArray[np.float32] | None = None
        tokens: list[NDArray[np.float32] | None] | None = [None] * len(texts) if with_tokens else None
        if self._embeddings == "sentence":
            sentences = np.zeros((len(texts), engine.hidden_size), dtype=np.float32)

        def run(places: list[int], ids: list[Any]) -> None:
            outputs: list[Output] = engine.run(ids, hidden=self._embeddings != "none")
            for place, output in zip(places, outputs, strict=True):
                logits[place] = output.logits
                if sentences is not None:
                    sentences[place] = sentence_embedding(output.hidden)  # type: ignore[arg-type]
                if tokens is not None:
                    tokens[place] = output.hidden

        good = [(place, item) for place, item in enumerate(items) if not isinstance(item, TextError)]
        # The longest first: the last batches of a window, for which a core may wait, are its shortest.
        good.sort(key=lambda pair: len(pair[1]), reverse=True)
        futures: list[Future[None]] = []
        for start in range(0, len(good), BATCH_SIZE):
            batch = good[start : start + BATCH_SIZE]
            futures.append(self._pool.submit(run, [place for place, _ in batch], [item.ids for _, item in batch]))

        def finish() -> Answered:
            for future in futures:
                future.result()
            return Answered(items, logits, sentences, tokens)

        return finish
