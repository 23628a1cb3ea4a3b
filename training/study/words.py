"""Words in sentences: which are the same type, where each is used, and the vector of each use after every layer."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

BATCH_SIZE = 32
SENTENCE, FIRST, STOP, KIND, START, END = range(6)  # columns of `Words.uses`


@dataclass(frozen=True)
class Words:
    """
    The uses of whole words in tokenized sentences.

    A word is what the tokenizer splits at blanks and punctuation, has a letter, and is in the vocabulary, at least in
    pieces. Two uses are of one kind (one word type) if they have the same pieces: then they have the same rows.
    """

    texts: Sequence[str]
    ids: Sequence[Sequence[int]]  # tokens of each sentence, special ones included
    pieces: Sequence[tuple[int, ...]]  # of each kind
    names: Sequence[str]  # of each kind, as its first use writes it
    uses: NDArray[np.int64]  # shape (uses, 6): sentence, first token, the one after the last, kind, characters from, to
    pad_id: int

    @classmethod
    def of(cls, texts: Sequence[str], tokenizer: Any, *, max_tokens: int) -> Words:
        """Tokenize sentences, cut at `max_tokens`, and find their words."""
        encodings = tokenizer(list(texts), truncation=True, max_length=max_tokens).encodings if texts else []
        special = set(tokenizer.all_special_ids)
        ignores_case = tokenizer("A")["input_ids"] == tokenizer("a")["input_ids"]
        kinds: dict[tuple[int, ...], int] = {}
        names = []
        uses = []
        for number, (text, encoding) in enumerate(zip(texts, encodings, strict=True)):
            for word, group in groupby(range(len(encoding.ids)), key=encoding.word_ids.__getitem__):
                places = list(group)
                pieces = tuple(encoding.ids[place] for place in places)
                start, end = encoding.offsets[places[0]][0], encoding.offsets[places[-1]][1]
                if word is None or special.intersection(pieces) or not any(map(str.isalpha, text[start:end])):
                    continue
                if pieces not in kinds:
                    kinds[pieces] = len(kinds)
                    names.append(text[start:end].casefold() if ignores_case else text[start:end])
                uses.append((number, places[0], places[-1] + 1, kinds[pieces], start, end))
        return cls(
            texts,
            [encoding.ids for encoding in encodings],
            list(kinds),
            names,
            np.asarray(uses, dtype=np.int64).reshape(-1, 6),
            tokenizer.pad_token_id,
        )

    def marked(self, use: int) -> str:
        """Return the sentence of a use with asterisks around the word."""
        sentence, start, end = (int(self.uses[use, column]) for column in (SENTENCE, START, END))
        text = self.texts[sentence]
        return f"{text[:start]}*{text[start:end]}*{text[end:]}"

    def contexts(self) -> NDArray[np.int64]:
        """Return in how many sentences each kind is used, shape (kinds,)."""
        pairs = np.unique(self.uses[:, [KIND, SENTENCE]], axis=0)
        return np.bincount(pairs[:, 0], minlength=len(self.names))


def layer_names(layers: int) -> list[str]:
    """Return what `vectors` calls its layers: `types`, `embeddings`, `1` up to the highest."""
    return ["types", "embeddings", *map(str, range(1, layers + 1))]


def vectors(
    model: Any, words: Words, sentences: NDArray[np.int64] | None = None
) -> Iterator[tuple[int, NDArray[np.int64], NDArray[np.float32]]]:
    """
    Run sentences and give the vectors of their words: the mean over the pieces of each.

    Args:
        model: An encoder as `subject.load_encoder` gives it.
        words: The sentences and their words.
        sentences: Numbers of those to run; None: all.

    Yields:
        How many sentences were run, the numbers of their uses, and their vectors, shape (layers + 2, uses, hidden). The
        first layer are rows of the word-embedding matrix, and nothing else; the second is what the embeddings give with
        position, segment and normalisation; then comes the output of each block.
    """
    import torch

    rows = model.get_input_embeddings().weight.detach()
    chosen = np.arange(len(words.ids)) if sentences is None else sentences
    lengths = np.asarray([len(words.ids[i]) for i in chosen], dtype=np.int64)
    chosen = chosen[np.argsort(lengths, kind="stable")]
    order = np.argsort(words.uses[:, SENTENCE], kind="stable")
    starts = np.searchsorted(words.uses[order, SENTENCE], np.arange(len(words.ids) + 1))
    with torch.inference_mode():
        for at in range(0, len(chosen), BATCH_SIZE):
            batch = chosen[at : at + BATCH_SIZE]
            ids = torch.nn.utils.rnn.pad_sequence(
                [torch.tensor(words.ids[i]) for i in batch], batch_first=True, padding_value=words.pad_id
            )  # (sentences, tokens)
            size = torch.tensor([len(words.ids[i]) for i in batch])
            mask = (torch.arange(ids.shape[1]) < size[:, None]).long()
            states = model(input_ids=ids, attention_mask=mask, output_hidden_states=True).hidden_states
            uses = np.concatenate([order[starts[i] : starts[i + 1]] for i in batch])
            places = words.uses[uses]
            counts = places[:, STOP] - places[:, FIRST]
            row = np.repeat(np.repeat(np.arange(len(batch)), starts[batch + 1] - starts[batch]), counts)
            within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
            token = np.repeat(places[:, FIRST], counts) + within
            to = torch.from_numpy(np.repeat(np.arange(len(uses)), counts))
            found = np.empty((len(states) + 1, len(uses), rows.shape[1]), dtype=np.float32)
            for layer, state in enumerate((rows[ids], *states)):
                sums = torch.zeros(len(uses), rows.shape[1]).index_add_(0, to, state[row, token])
                found[layer] = sums / torch.from_numpy(counts)[:, None]
            yield len(batch), uses, found
