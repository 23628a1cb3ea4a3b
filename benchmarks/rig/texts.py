"""The texts that are measured with, read with the standard library: the serving environment has no more."""

from __future__ import annotations

import csv
import math
import random
from typing import TYPE_CHECKING

from inference.encoder import Encoded
from inference.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from inference.encoder import Encoder

COLUMN = "text"


def read_texts(path: Path, encoder: Encoder) -> list[str]:
    """
    Return the texts of a CSV file that have tokens, shuffled: files are often sorted by label.

    Raises:
        InputError: the file cannot be read, or holds no texts.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.DictReader(file)
            if COLUMN not in (rows.fieldnames or ()):
                raise InputError(f"{path}: has the columns {rows.fieldnames}; expected one named `{COLUMN}`")
            texts = [row[COLUMN] or "" for row in rows]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: cannot be read ({error})") from error
    good = [text for text, item in zip(texts, encoder.encode(texts), strict=True) if isinstance(item, Encoded)]
    if not good:
        raise InputError(f"{path}: none of its {len(texts)} rows has a text")
    random.Random(0).shuffle(good)
    return good


def mixed_lengths(texts: Sequence[str], encoder: Encoder, count: int, *, shortest: int, longest: int) -> list[str]:
    """
    Join sentences and cut them to lengths spread log-uniformly: as many texts of 10 to 20 tokens as of 100 to 200.

    Args:
        texts: Sentences to make them of.
        encoder: Counts the tokens, special ones included.
        count: How many to make.
        shortest: Tokens of the shortest, special ones included.
        longest: Tokens of the longest; not more than the encoder reads.
    """
    chance = random.Random(0)
    made: list[str] = []
    while len(made) < count:
        length = round(math.exp(chance.uniform(math.log(shortest), math.log(longest))))
        words = " ".join(chance.choices(texts, k=longest // 3))
        (item,) = encoder.encode([words])
        assert isinstance(item, Encoded)  # noqa: S101  every sentence has tokens
        last = [token for token in item.tokens() if not token.special][: max(1, length - 2)][-1]
        made.append(words[: last.end])
    return made


def in_requests(texts: Sequence[str], size: int) -> list[list[str]]:
    """Return the texts as requests of `size` texts; one that is left over is filled up from the start."""
    return [[texts[(start + i) % len(texts)] for i in range(size)] for start in range(0, len(texts), size)]
