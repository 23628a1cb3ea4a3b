"""What a BERT tokenizer makes of a word, remembered: nearly every word of a text has been seen before."""

from __future__ import annotations

import re
from itertools import chain
from typing import TYPE_CHECKING, TypeVar

from tokenizers.models import WordPiece
from tokenizers.pre_tokenizers import BertPreTokenizer

from inference import treebank

if TYPE_CHECKING:
    from collections.abc import Callable

    from tokenizers import Tokenizer

Value = TypeVar("Value")
# Of a token: its name where it is special, from and to which character it reaches, whether it is special.
Place = tuple[str, int, int, bool]

MOST_WORDS = 20_000  # remembered at a time: some megabytes
LONGEST_WORD = 32  # characters of a word that is remembered

# Of ASCII, BERT splits off every sign and drops blanks; of what its normaliser does, only lower case and these blanks
# are left.
_WORD = re.compile(r"[A-Za-z0-9]+|[^A-Za-z0-9 ]")
_BLANKS = str.maketrans("\t\n\r", "   ")


class _Memory(dict[str, Value]):
    """What `make` gives for a word, kept."""

    def __init__(self, make: Callable[[str], Value]) -> None:
        self._make = make

    def __missing__(self, word: str) -> Value:
        made = self._make(word)
        if len(word) <= LONGEST_WORD:
            if len(self) >= MOST_WORDS:
                self.clear()
            self[word] = made
        return made


class Words:
    """
    The tokens of texts in printable ASCII, as a BERT tokenizer gives them, which is asked for new words only.

    A text takes a quarter of the time of tokenizing it. Thread-safe.
    """

    def __init__(
        self, tokenizer: Tokenizer, before: list[int], after: list[int], *, lowercase: bool, undone: bool
    ) -> None:
        model = tokenizer.model
        # Special tokens, and what the tokenizer is to write in another way.
        others = [re.escape(token.content) for token in tokenizer.get_added_tokens_decoder().values()]
        others += [pattern for pattern, _ in (treebank.MARKS if undone else ())]
        self._others = re.compile("|".join(others) or r"(?!)")
        self._name_of = tokenizer.id_to_token
        self._before = before  # ids of the special tokens in front of every text
        self._after = after
        self._lowercase = lowercase
        self._ids = _Memory(lambda word: tuple([token.id for token in model.tokenize(word)]))
        self._offsets = _Memory(lambda word: tuple([token.offsets for token in model.tokenize(word)]))

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> Words | None:
        """Return the words of a tokenizer; None where it is not BERT's and may split texts in another way."""
        if not (isinstance(tokenizer.pre_tokenizer, BertPreTokenizer) and isinstance(tokenizer.model, WordPiece)):
            return None
        steps, undone = treebank.steps(tokenizer)
        if [step["type"] for step in steps] != ["BertNormalizer"]:
            return None
        # Special tokens are looked for as they are written, before anything else is done to a text.
        if not all(token.special and not token.normalized for token in tokenizer.get_added_tokens_decoder().values()):
            return None
        sample = tokenizer.encode("a")
        if sample.special_tokens_mask.count(0) != 1:
            return None
        place = sample.special_tokens_mask.index(0)
        return cls(
            tokenizer, sample.ids[:place], sample.ids[place + 1 :], lowercase=steps[0]["lowercase"], undone=undone
        )

    def plain(self, text: str) -> str | None:
        """Return a text as its words are looked up, character for character; None for the tokenizer's own work."""
        if not text.isascii():
            return None
        if not text.isprintable():
            text = text.translate(_BLANKS)
        if not text.isprintable() or self._others.search(text):
            return None
        return text.lower() if self._lowercase else text

    def ids(self, plain: str) -> list[int]:
        """Return the token ids of a text that `plain` returned, special tokens included."""
        words = map(self._ids.__getitem__, _WORD.findall(plain))
        return [*self._before, *chain.from_iterable(words), *self._after]

    def cut(self, ids: list[int], most: int) -> list[int]:
        """Return the first `most` ids of a text as it would be if it ended there."""
        return ids[: most - len(self._after)] + self._after

    def places(self, plain: str, count: int) -> list[Place]:
        """Return the places of the first `count` tokens of a text as `cut` leaves it."""
        found: list[Place] = [(self._name_of(token), 0, 0, True) for token in self._before]
        for word in _WORD.finditer(plain):
            first = word.start()
            found += [("", first + start, first + end, False) for start, end in self._offsets[word.group()]]
        del found[count - len(self._after) :]
        return found + [(self._name_of(token), 0, 0, True) for token in self._after]
