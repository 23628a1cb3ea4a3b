"""Texts that say the same: what must not be learnt from while its like is judged."""

from __future__ import annotations

import html
import re
import unicodedata
from functools import cache
from itertools import groupby

# Marks by Unicode's categories that are said: as in C#, 5%, R&D, a@b and -5.
MEANT = re.compile(r"(?<=\w)(?:[#%]|[&@](?=\w))|(?<!\S)-(?=\d)")
# Which form of a character is meant, as of a heart with colour or without, and what joins nothing to be seen.
VARIATION = re.compile("[\u034f\ufe00-\ufe0f\U000e0100-\U000e01ef]")
# Faces, as in "great :)", with a nose or without. Those that look the other way stand alone: "(as here):" has none.
FACE = re.compile(
    r"[:;][-'’*,]?(?:[()\[\]{}*@]|[/\\](?!/))(?!\w)|(?<!\S)[()\[\]][-'’*,]?[:;]|(?<!\w)(?:-_+-|\*[-_]+\*)(?!\w)"
)
PER_CENT = re.compile(r"(?<=\d)\s+%")  # as German and French write it


def fold(text: str) -> str:
    """
    Return a text without case, punctuation and spacing: what is equal then is a copy for every practical purpose.

    Signs that mean something stay: symbols such as emoji, the marks of C#, 5% and -5, and faces, as :) is another one
    than :(. What has neither form nor width, such as a soft hyphen, is nothing, as it is for BERT.
    """
    plain = PER_CENT.sub("%", fold_case(text))
    kinds = [_kind(character) for character in plain]
    for mark in MEANT.finditer(plain):
        kinds[mark.start()] = "W"
    for face in FACE.finditer(plain):
        kinds[face.start() : face.end()] = "F" * len(face.group())
    parts = []
    for kind, run in groupby(zip(kinds, plain, strict=True), key=lambda pair: pair[0]):
        part = "".join(character for _, character in run)
        parts.append(part if kind == "W" else f" {part} " if kind == "F" else " ")
    words = "".join(parts).split()
    return " ".join(words or plain.split())  # of a text of marks alone, the marks


def fold_case(text: str) -> str:
    """
    Return a text without case, without characters that have no width, and each other one in its usual form.

    A character that is written as in HTML, such as &amp;, is the one it stands for.
    """
    if "&" in text:
        text = html.unescape(text)
    if not text.isascii():
        text = "".join(
            character
            for character in text
            if unicodedata.category(character) != "Cf" and not VARIATION.match(character)
        )
        text = unicodedata.normalize("NFKC", text)
    return text.casefold()


@cache
def _kind(character: str) -> str:
    """Return P for a punctuation mark, Z for a blank or a control character, W for what words and symbols are of."""
    category = unicodedata.category(character)[0]
    return {"P": "P", "Z": "Z", "C": "Z"}.get(category, "W")
