"""Texts to token ids and character offsets; truncation."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from tokenizers import Tokenizer

from inference.errors import ArtifactError, TextError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray


HEAD_CHARACTERS = 20  # a token: several times what any language needs on average


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

    Tokens with their offsets are made when asked for: a prediction alone does not need them.
    """

    __slots__ = ("_encoding", "ids", "text", "truncated")

    def __init__(self, text: str, ids: NDArray[np.int64], encoding: object, *, truncated: bool) -> None:
        self.text = text
        self.ids = ids  # shape (tokens,)
        self.truncated = truncated
        self._encoding = encoding

    def __len__(self) -> int:
        return len(self.ids)

    def tokens(self) -> list[Token]:
        """Return the tokens in order; a special token has empty offsets and its own name as text."""
        encoding: Any = self._encoding
        offsets = encoding.offsets if self.text.isascii() else _with_marks(self.text, encoding.offsets)
        rows = zip(encoding.tokens, encoding.ids, offsets, encoding.special_tokens_mask, strict=True)
        return [
            Token(name if special else self.text[start:end], id_, start, end, bool(special))
            for name, id_, (start, end), special in rows
        ]

    def special(self) -> NDArray[np.bool_]:
        """Return which tokens are special, shape (tokens,)."""
        encoding: Any = self._encoding
        return np.asarray(encoding.special_tokens_mask, dtype=bool)


class Encoder:
    """The tokenizer of one model. Thread-safe."""

    def __init__(self, tokenizer: Tokenizer, max_tokens: int, pad_id: int) -> None:
        self.max_tokens = max_tokens
        self.pad_id = pad_id
        self._tokenizer = tokenizer
        self._special_count = tokenizer.num_special_tokens_to_add(is_pair=False)

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
        tokenizer.enable_truncation(max_tokens)
        return cls(tokenizer, max_tokens, pad_id)

    def encode(self, texts: Sequence[str]) -> list[Encoded | TextError]:
        """
        Return the tokens of every text, in order; a text that has none is a `TextError` in its place.

        Texts of more than `max_tokens` tokens, special tokens included, are cut at their end and marked.
        """
        results: list[Encoded | TextError] = [_flaw(text) or _EMPTY for text in texts]
        good = [i for i, result in enumerate(results) if result is _EMPTY and texts[i].strip()]
        encodings = self._tokenizer.encode_batch([self._head(texts[i]) for i in good])
        for i, encoding in zip(good, encodings, strict=True):
            ids = encoding.ids
            if len(ids) > self._special_count:
                results[i] = Encoded(
                    texts[i], np.asarray(ids, dtype=np.int64), encoding, truncated=bool(encoding.overflowing)
                )
        return results

    def _head(self, text: str) -> str:
        """
        Return so much of a text as decides its first `max_tokens` tokens, and one token more.

        Without it, ten megabytes are tokenized for the sake of their first page. A head ends between two words, where
        what follows changes no token before; where there are no words, its last token is beyond the cut.
        """
        size = self.max_tokens * HEAD_CHARACTERS
        while size < len(text):
            head = text[:size]
            words = head.rsplit(None, 1)
            head = words[0] if len(words) > 1 else head
            if len(self._tokenizer.encode(head).overflowing):
                return head
            size *= 4
        return text


_EMPTY = TextError("text_empty", "the text is empty or blank; send at least one visible character")


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
    return None
