"""Sentences split into tokens as in the Penn Treebank (Marcus et al. 1993), and read as people write them."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tokenizers import Tokenizer

# What changes the tokens of BERT, and by what it is replaced, in this order. Python and Oniguruma agree on these.
MARKS = (
    *((f"(?i:-L{kind}B-)", left) for kind, left in zip("RSC", "([{", strict=True)),
    *((f"(?i:-R{kind}B-)", right) for kind, right in zip("RSC", ")]}", strict=True)),
    ("``|''", '"'),
    (r"\\(?=[/*])", ""),
    (r"(?i:(?<=\w) (?=n't\b))", ""),
    (r"(?i:(?<=\bgon) (?=na\b)|(?<=\bgot) (?=ta\b)|(?<=\bwan) (?=na\b)|(?<=\bgim) (?=me\b)|(?<=\blem) (?=me\b))", ""),
)
# Blanks around signs are nothing to BERT; to other tokenizers they are.
_IN_QUOTES = r"(?<=``) | (?='')"
_AT_SIGNS = r"(?i:(?<=[(\[{]) | (?=(?:[)\]},.;?!%]|'(?:s|m|d|ll|re|ve))(?!\S)))"
# Models have these in their tokenizer.json and are known by them: better ones would be a list besides.
RULES = ((_IN_QUOTES, ""), *MARKS, (_AT_SIGNS, ""))
_SIGNS = re.compile(r"\w n't\b|-[LR][RSC]B-|(?<!\S)`` [^`]+ ''(?!\S)", re.IGNORECASE)  # what nobody writes by hand
_WHOLE = re.compile(r"(?:-[LR][RSC]B-|``|'')\Z", re.IGNORECASE)  # marks that become one character


def is_split(text: str) -> bool:
    """Say whether a text is split as in the Penn Treebank, by signs that nobody writes by hand."""
    return bool(_SIGNS.search(text))


def whole_marks(text: str, offsets: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return the places of tokens, where those that a tokenizer gives the end of a mark alone have all of it."""
    found = []
    reached = 0  # by the tokens before
    for start, end in offsets:
        mark = _WHOLE.search(text, max(reached, end - 5), end) if end - start == 1 else None
        found.append((mark.start() if mark else start, end))
        reached = max(reached, end)
    return found


def set_undoing(tokenizer: Tokenizer, *, undo: bool) -> None:
    """Make a tokenizer read sentences of the Treebank as people write them, or as they are; it may do so already."""
    from tokenizers import Regex
    from tokenizers.normalizers import Replace
    from tokenizers.normalizers import Sequence as Steps

    others, undoes = steps(tokenizer)
    if undo and not undoes:
        rules = [Replace(Regex(pattern), content) for pattern, content in RULES]
        tokenizer.normalizer = Steps([*rules, *([tokenizer.normalizer] if tokenizer.normalizer else [])])
    elif undoes and not undo:
        kept = [tokenizer.normalizer[len(RULES) + i] for i in range(len(others))]
        tokenizer.normalizer = kept[0] if len(kept) == 1 else Steps(kept) if kept else None


def steps(tokenizer: Tokenizer) -> tuple[list[dict[str, Any]], bool]:
    """Return what a tokenizer makes of a text after `RULES`, as tokenizer.json has it, and whether it has these."""
    if not tokenizer.normalizer:
        return [], False
    described = json.loads(tokenizer.normalizer.__getstate__())
    found: list[dict[str, Any]] = described["normalizers"] if described["type"] == "Sequence" else [described]
    ours = [{"type": "Replace", "pattern": {"Regex": pattern}, "content": content} for pattern, content in RULES]
    undone = found[: len(ours)] == ours
    return found[len(ours) :] if undone else found, undone
