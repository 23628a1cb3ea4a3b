"""Texts that say the same: what must not be learnt from while its like is judged."""

from __future__ import annotations

import unicodedata
from itertools import groupby


def fold(text: str) -> str:
    """
    Return a text without case, punctuation and spacing: what is equal then is a copy for every practical purpose.

    Signs that mean something stay: symbols such as emoji, and runs of different marks, such as :) in place of :(.
    """
    plain = unicodedata.normalize("NFKC", text).casefold()
    parts = []
    for kind, run in groupby(plain, key=_kind):
        part = "".join(run)
        if kind == "P":
            part = f" {part} " if len(set(part)) > 1 else " "
        parts.append(" " if kind == "Z" else part)
    words = "".join(parts).split()
    return " ".join(words or plain.split())  # of a text of marks alone, the marks


def _kind(character: str) -> str:
    """Return P for a punctuation mark, Z for a blank or an invisible character, W for what words and symbols are of."""
    category = unicodedata.category(character)[0]
    return {"P": "P", "Z": "Z", "C": "Z"}.get(category, "W")
