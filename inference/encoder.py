"""Texts to token ids and character offsets; truncation."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from tokenizers import Tokenizer

from inference import treebank
from inference.errors import ArtifactError, TextError
from inference.words import Words

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from inference.words import Place


HEAD_CHARACTERS = 20  # a token: several times what any language needs on average
OVERLAP = 4  # a window of a long text repeats a quarter of the one before, so that no phrase is only ever seen cut


@dataclass(frozen=True, slots=True)
class Token:
    """One token as the model sees it; `start:end` are character offsets into the text as it was sent."""

    text: str
    id: int
    start: int
    end: int
    special: bool


class Encoded:
    """
    One text as token ids, special tokens included; `len()` is their number.

    Tokens with their offsets are made when asked for: a prediction alone does not need them. A text of which more was
    asked for than the model reads at once goes on in `rest`, window after window, each overlapping the one before.
    """

    __slots__ = ("_places", "ids", "rest", "text", "truncated")

    def __init__(
        self,
        text: str,
        ids: NDArray[np.int64],
        places: Callable[[], list[Place]] | None,
        *,
        truncated: bool,
        rest: tuple[Encoded, ...] = (),
    ) -> None:
        self.text = text
        self.ids = ids  # shape (tokens,)
        self.truncated = truncated  # there is more of the text than these ids and those in `rest`
        self.rest = rest
        self._places = places

    @property
    def windows(self) -> tuple[Encoded, ...]:
        """Return the window at the start of the text and those that follow."""
        return (self, *self.rest)

    @property
    def total(self) -> int:
        """Return the tokens of all windows, overlaps and special tokens included."""
        return sum(map(len, self.windows)) if self.rest else len(self)

    def span(self) -> tuple[int, int]:
        """Return from which to which character of the text the tokens reach."""
        ends = [(token.start, token.end) for token in self.tokens() if not token.special]
        return min(start for start, _ in ends), max(end for _, end in ends)

    def __len__(self) -> int:
        return len(self.ids)

    def tokens(self) -> list[Token]:
        """Return the tokens in order; a special token has empty offsets and its own name as text."""
        assert self._places is not None, "encode with offsets=True"  # noqa: S101
        return [
            Token(name if special else self.text[start:end], id_, start, end, special)
            for id_, (name, start, end, special) in zip(self.ids.tolist(), self._places(), strict=True)
        ]

    def without(self, place: int) -> Encoded:
        """Return the ids as they are without one token; what is left of the text has no offsets."""
        return Encoded(self.text, np.delete(self.ids, place), None, truncated=self.truncated)

    def special(self) -> NDArray[np.bool_]:
        """Return which tokens are special, shape (tokens,)."""
        return np.asarray([token.special for token in self.tokens()])


class Encoder:
    """The tokenizer of one model. Thread-safe."""

    def __init__(self, tokenizer: Tokenizer, max_tokens: int, pad_id: int) -> None:
        self.max_tokens = max_tokens
        self.pad_id = pad_id
        self._tokenizer = tokenizer
        self._words = Words.of(tokenizer)
        _, self._undone = treebank.steps(tokenizer)
        self.special_count = tokenizer.num_special_tokens_to_add(is_pair=False)  # of every text

    @classmethod
    def load(cls, path: Path, max_tokens: int) -> Encoder:
        """Read a tokenizer.json; its padding section names the padding token."""
        try:
            tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:
            raise ArtifactError(
                f"{path}: not a tokenizer this version reads ({error}); export the model again"
            ) from error
        if tokenizer.padding is None:
            raise ArtifactError(
                f"{path}: has no padding section, so the padding token is unknown; export the model again"
            )
        pad_id = tokenizer.padding["pad_id"]
        tokenizer.no_padding()
        special = tokenizer.num_special_tokens_to_add(is_pair=False)
        tokenizer.enable_truncation(max_tokens, stride=max(0, (max_tokens - special) // OVERLAP))
        return cls(tokenizer, max_tokens, pad_id)

    def encode(self, texts: Sequence[str], *, max_windows: int = 1, offsets: bool = True) -> list[Encoded | TextError]:
        """
        Return the tokens of every text, in order; a text that has none is a `TextError` in its place.

        A text of more than `max_tokens` tokens, special tokens included, is cut into windows of that size which
        overlap by a quarter; what comes after `max_windows` of them is left out, and the text marked as truncated.

        Args:
            texts: Anything; what is not a text is an error in its place.
            max_windows: Windows to read of each.
            offsets: Whether `tokens()` and `span()` will be asked for; without, this takes less time.
        """
        results: list[Encoded | TextError | None]
        results = [self._look_up(text, max_windows, offsets=offsets) or _flaw(text) for text in texts]
        others = [i for i, result in enumerate(results) if result is None]
        if others:
            heads = [self._head(texts[i], max_windows) for i in others]
            encode = self._tokenizer.encode_batch if offsets else self._tokenizer.encode_batch_fast
            for i, encoding in zip(others, encode(heads), strict=True):
                results[i] = self._encoded(texts[i], encoding, max_windows, offsets=offsets)
        return results  # type: ignore[return-value]  # every place is filled by now

    def _look_up(self, text: object, max_windows: int, *, offsets: bool) -> Encoded | None:
        """Return the tokens of a text by those of its words; None where that takes the tokenizer itself."""
        words = self._words
        if words is None or not isinstance(text, str) or len(text) > self.max_tokens * HEAD_CHARACTERS:
            return None
        plain = words.plain(text)
        if plain is None:
            return None
        ids = words.ids(plain)
        truncated = len(ids) > self.max_tokens
        if len(ids) == self.special_count or (truncated and max_windows > 1):
            return None
        if truncated:
            ids = words.cut(ids, self.max_tokens)
        places = partial(words.places, plain, len(ids)) if offsets else None
        return Encoded(text, np.array(ids, dtype=np.int64), places, truncated=truncated)

    def _encoded(self, text: str, encoding: Any, max_windows: int, *, offsets: bool) -> Encoded | TextError:
        if len(encoding.ids) <= self.special_count:
            return _EMPTY
        rest = encoding.overflowing

        def window(encoding: Any, *, truncated: bool = False, rest: tuple[Encoded, ...] = ()) -> Encoded:
            places = partial(_places, text, encoding, undone=self._undone) if offsets else None
            return Encoded(text, np.array(encoding.ids, dtype=np.int64), places, truncated=truncated, rest=rest)

        return window(encoding, truncated=len(rest) >= max_windows, rest=tuple(map(window, rest[: max_windows - 1])))

    def _head(self, text: str, max_windows: int) -> str:
        """
        Return so much of a text as decides its first `max_windows` windows, and one token more.

        A text of millions of characters is not tokenized for the sake of its first page. A head ends between two words,
        where what follows changes no token before; where there are no words, its last token is beyond the cut.
        """
        size = self.max_tokens * max_windows * HEAD_CHARACTERS
        while size < len(text):
            head = text[:size]
            words = head.rsplit(None, 1)
            head = words[0] if len(words) > 1 else head
            (encoding,) = self._tokenizer.encode_batch([head])  # unlike encode, it lets other threads run meanwhile
            if len(encoding.overflowing) >= max_windows:
                return head
            size *= 4
        return text


_EMPTY = TextError("text_empty", "the text is empty or blank; send at least one visible character")


def _places(text: str, encoding: Any, *, undone: bool) -> list[Place]:
    offsets = encoding.offsets if text.isascii() else _with_marks(text, encoding.offsets)
    if undone:
        offsets = treebank.whole_marks(text, offsets)
    return [
        (name, start, end, bool(special))
        for name, (start, end), special in zip(encoding.tokens, offsets, encoding.special_tokens_mask, strict=True)
    ]


def _with_marks(text: str, offsets: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """
    Let every token end after the combining marks of its last letter.

    A tokenizer that strips accents drops a mark that is a character of its own, and its offsets stop before it.
    """
    covered = {start for start, end in offsets if end > start}
    extended = []
    for start, end in offsets:
        while start < end < len(text) and end not in covered and unicodedata.category(text[end]).startswith("M"):
            end += 1
        extended.append((start, end))
    return extended


def _flaw(text: object) -> TextError | None:
    if not isinstance(text, str):
        return TextError("text_invalid", f"expected a string, found {type(text).__name__}")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        return TextError(
            "text_invalid",
            f"character {error.start} is a lone surrogate (U+{ord(text[error.start]):04X}), which no text contains; "
            "send valid Unicode",
        )
    return None if text.strip() else _EMPTY
