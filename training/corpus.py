"""Raw text to pretrain on: files to distinct sentences, sentences to tokens with the words they are parts of."""

from __future__ import annotations

import sys
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from training.data import read_placed
from training.errors import DataError
from training.formats import read_text
from training.order import by_length

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

FEWEST = 50  # distinct texts, below which neither learning nor measuring means anything
NO_WORD = -1  # in place of a word's number: padding, and tokens that stand for no word


def read_corpus(paths: Sequence[str | Path], *, text_column: str = "text") -> list[str]:
    """
    Read the distinct sentences of one or several files, in their order; what has no visible character is left out.

    Args:
        paths: `.txt` with a sentence a line, or CSV, TSV, JSONL or Parquet, whose labels are not read.
        text_column: Name of the column, or JSON key, with the sentence.

    Returns:
        Texts with single blanks, no two of which differ in case or spacing alone.

    Raises:
        DataError: a file cannot be read or lacks the column, or there are fewer than 50 distinct texts.
    """
    distinct: dict[str, str] = {}
    read = 0
    for path in map(Path, paths):
        before, left_out = read, []
        for text in _texts(path, text_column):
            if isinstance(text, DataError):
                left_out.append(text)
                continue
            read += 1
            plain = " ".join(text.split())
            distinct.setdefault(plain.casefold(), plain)
        if left_out:
            print(f"left out {len(left_out)} rows without a sentence, the first: {left_out[0]}", file=sys.stderr)
        if read == before:
            raise DataError(f"{path}: holds no sentence; expected text to pretrain on")
    if len(distinct) < FEWEST:
        raise DataError(
            f"{', '.join(map(str, paths))}: {len(distinct)} distinct of {read} sentences; expected at least {FEWEST}, "
            "and thousands for a model that is any good"
        )
    return list(distinct.values())


def divide(texts: Sequence[str], *, share: float, seed: int) -> tuple[list[str], list[str]]:
    """Return the texts to learn from and those held out, a `share` of them and at least one, chosen by `seed`."""
    order = np.random.default_rng(seed).permutation(len(texts))
    count = max(1, round(share * len(texts)))
    held_out = set(order[:count].tolist())
    return [text for i, text in enumerate(texts) if i not in held_out], [texts[i] for i in order[:count]]


def _texts(path: Path, text_column: str) -> Iterator[str | DataError]:
    if path.suffix.lower() == ".txt":
        try:
            lines = read_text(path).split("\n")  # not str.splitlines(): a sentence may hold U+2028 and its like
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error.strerror or error}); expected a file of text") from error
        yield from (line for line in lines if any(unicodedata.category(character)[0] not in "CZ" for character in line))
        return
    if path.suffix.lower() not in (".csv", ".tsv", ".jsonl", ".parquet"):
        raise DataError(f"{path}: unknown ending {path.suffix!r}; expected one of .txt, .csv, .tsv, .jsonl, .parquet")
    for _, row in read_placed(path, text_column=text_column, label_column=None):
        yield row if isinstance(row, DataError) else row.text


@dataclass(frozen=True)
class Tokens:
    """Tokenized texts, one after the other in flat arrays."""

    ids: NDArray[np.int64]  # shape (all tokens,)
    words: NDArray[np.int64]  # which word of its text each token is part of, or NO_WORD; shape (all tokens,)
    starts: NDArray[np.int64]  # where each text begins, and where the last one ends; shape (texts + 1,)
    pad_id: int

    @classmethod
    def of(cls, texts: Sequence[str], tokenizer: Any, *, max_tokens: int) -> Tokens:
        """
        Tokenize texts, special tokens included; longer ones are cut.

        Special tokens have no word, nor has what the vocabulary lacks: there is nothing to be learnt from guessing it.
        """
        encodings = tokenizer(list(texts), truncation=True, max_length=max_tokens).encodings if texts else []
        lengths = [len(encoding.ids) for encoding in encodings]
        ids = np.fromiter((token for encoding in encodings for token in encoding.ids), dtype=np.int64)
        numbers = (NO_WORD if word is None else word for encoding in encodings for word in encoding.word_ids)
        words = np.fromiter(numbers, dtype=np.int64)
        words[np.isin(ids, tokenizer.all_special_ids)] = NO_WORD
        return cls(ids, words, np.cumsum([0, *lengths]), tokenizer.pad_token_id)

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def lengths(self) -> NDArray[np.int64]:
        """The number of tokens of each text."""
        return np.diff(self.starts)

    def with_words(self) -> NDArray[np.int64]:
        """Return the numbers of the texts that have a word to be guessed."""
        return np.unique(np.repeat(np.arange(len(self)), self.lengths)[self.words != NO_WORD])

    def batch(self, chosen: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return ids and word numbers of the chosen texts, padded at the end; each of shape (len(chosen), longest)."""
        lengths = self.lengths[chosen]
        places = np.arange(lengths.max())
        inside = places < lengths[:, None]  # (texts, longest)
        flat = (self.starts[chosen][:, None] + places)[inside]
        ids, words = np.full(inside.shape, self.pad_id), np.full(inside.shape, NO_WORD)
        ids[inside], words[inside] = self.ids[flat], self.words[flat]
        return ids, words


def batches(tokens: Tokens, size: int, generator: np.random.Generator) -> list[NDArray[np.int64]]:
    """
    Return one pass over all texts with a word, as batches of the numbers of texts of about the same length.

    Both the texts and the batches come by chance.
    """
    passed = by_length(generator.permutation(tokens.with_words()), tokens.lengths, size)
    return [passed[i] for i in generator.permutation(len(passed))]
