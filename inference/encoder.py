"""Texts to token ids and character offsets; truncation."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from tokenizers import Tokenizer
from tokenizers.normalizers import BertNormalizer

from inference.errors import ArtifactError, TextError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray


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

    __slots__ = ("_encoding", "ids", "rest", "text", "truncated")

    def __init__(
        self, text: str, ids: NDArray[np.int64], encoding: object, *, truncated: bool, rest: tuple[Encoded, ...] = ()
    ) -> None:
        self.text = text
        self.ids = ids  # shape (tokens,)
        self.truncated = truncated  # there is more of the text than these ids and those in `rest`
        self.rest = rest
        self._encoding = encoding

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
        encoding: Any = self._encoding
        assert encoding is not None, "encode with offsets=True"  # noqa: S101
        offsets = encoding.offsets if self.text.isascii() else _with_marks(self.text, encoding.offsets)
        rows = zip(encoding.tokens, encoding.ids, offsets, encoding.special_tokens_mask, strict=True)
        return [
            Token(name if special else self.text[start:end], id_, start, end, bool(special))
            for name, id_, (start, end), special in rows
        ]

    def special(self) -> NDArray[np.bool_]:
        """Return which tokens are special, shape (tokens,)."""
        encoding: Any = self._encoding
        assert encoding is not None, "encode with offsets=True"  # noqa: S101
        return np.asarray(encoding.special_tokens_mask, dtype=bool)


class Encoder:
    """The tokenizer of one model. Thread-safe."""

    def __init__(self, tokenizer: Tokenizer, max_tokens: int, pad_id: int) -> None:
        self.max_tokens = max_tokens
        self.pad_id = pad_id
        self._tokenizer = tokenizer
        self._plain = _without_normalizer(tokenizer)
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
            offsets: Whether `tokens()` and `span()` will be asked for; without, this takes a quarter less time.
        """
        results: list[Encoded | TextError] = [_flaw(text) or _EMPTY for text in texts]
        good = [i for i, result in enumerate(results) if result is _EMPTY and texts[i].strip()]
        heads = [self._head(texts[i], max_windows) for i in good]
        plain = self._plain
        if plain is not None and plain.takes(heads):
            tokenizer, heads = plain.tokenizer, [head.lower() for head in heads]
        else:
            tokenizer = self._tokenizer
        encodings = tokenizer.encode_batch(heads) if offsets else tokenizer.encode_batch_fast(heads)
        for i, encoding in zip(good, encodings, strict=True):
            if len(encoding.ids) > self._special_count:
                rest = encoding.overflowing
                results[i] = _encoded(
                    texts[i],
                    encoding,
                    offsets=offsets,
                    truncated=len(rest) >= max_windows,
                    rest=tuple(_encoded(texts[i], window, offsets=offsets) for window in rest[: max_windows - 1]),
                )
        return results

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


class _Plain:
    """
    BERT's tokenizer for texts of printable ASCII: of all that its normaliser does, only lower case changes those.

    The normaliser works character by character and keeps track of where each came from, which is a third of the time
    of tokenizing.
    """

    def __init__(self, tokenizer: Tokenizer, names: Sequence[str]) -> None:
        self.tokenizer = tokenizer
        self._names = names  # of special tokens, which are looked for as they are written

    def takes(self, texts: Sequence[str]) -> bool:
        """Say whether the texts in lower case have the same tokens here."""
        joined = "".join(texts)
        return joined.isascii() and joined.isprintable() and not any(name in joined for name in self._names)


def _without_normalizer(tokenizer: Tokenizer) -> _Plain | None:
    """Return a tokenizer that shares the vocabulary and leaves the normaliser out; None where it is not BERT's."""
    normalizer = tokenizer.normalizer
    if not isinstance(normalizer, BertNormalizer) or not normalizer.lowercase:
        return None
    added = [token for _, token in sorted(tokenizer.get_added_tokens_decoder().items())]
    if not all(token.special and not token.normalized for token in added):
        return None
    plain = Tokenizer(tokenizer.model)
    plain.pre_tokenizer = tokenizer.pre_tokenizer
    plain.post_processor = tokenizer.post_processor
    plain.add_special_tokens(added)
    plain.enable_truncation(**tokenizer.truncation)
    return _Plain(plain, [token.content for token in added])


def _encoded(
    text: str, encoding: Any, *, offsets: bool, truncated: bool = False, rest: tuple[Encoded, ...] = ()
) -> Encoded:
    ids = np.asarray(encoding.ids, dtype=np.int64)
    return Encoded(text, ids, encoding if offsets else None, truncated=truncated, rest=rest)


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
