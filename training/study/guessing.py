"""Words hidden one at a time, and where a masked language model ranks them among all it could say."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from training.corpus import NO_WORD, Tokens
from training.masked import masked_logits
from training.study.words import END, FIRST, KIND, SENTENCE, START, STOP

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from training.study.words import Words

WHOLE, NEAR, NONE = "whole sentence", "two words on each side", "no word at all"
CONTEXTS = (WHOLE, NEAR, NONE)
REACH = 2  # words on each side that NEAR leaves
BATCH_SIZE = 32
SHOWN = 5  # guesses of each example
CLASSES = (10, 100, 1000)  # ranks by frequency at which a class of words ends


@dataclass(frozen=True)
class Hidden:
    """One word of each of several sentences: the ones to be guessed."""

    sentences: NDArray[np.int64]  # shape (words,), rising
    spans: NDArray[np.int64]  # characters from, to; shape (words, 2)
    words: Sequence[str]
    ranks: NDArray[np.int64]  # by frequency in the corpus, 1 the most frequent; shape (words,)
    frequent: Sequence[str]  # the most frequent words of the corpus, first the most frequent

    @classmethod
    def draw(cls, several: Sequence[Words], *, most: int, seed: int) -> Hidden:
        """
        Draw a word of each of up to `most` sentences, among those that every tokenizer has as one piece.

        Args:
            several: The same sentences, as each model's tokenizer splits them.
            most: Sentences.
            seed: Draws sentences and words.
        """
        generator = np.random.default_rng(seed)
        first = several[0]
        texts = first.texts
        single = [
            {(int(u[SENTENCE]), int(u[START]), int(u[END])) for u in words.uses if u[STOP] - u[FIRST] == 1}
            for words in several
        ]
        in_all = sorted(set.intersection(*single))
        of_sentence: dict[int, list[tuple[int, int]]] = {}
        for sentence, start, end in in_all:
            of_sentence.setdefault(sentence, []).append((start, end))
        counts = Counter(first.names[kind] for kind in first.uses[:, KIND])
        order = sorted(counts, key=lambda name: (-counts[name], name))
        rank = {name: place for place, name in enumerate(order, start=1)}
        name_at = {(int(u[SENTENCE]), int(u[START])): first.names[int(u[KIND])] for u in first.uses}
        chosen = np.sort(generator.permutation(np.asarray(list(of_sentence), dtype=np.int64))[:most])
        spans = [of_sentence[i][generator.integers(len(of_sentence[i]))] for i in chosen.tolist()]
        return cls(
            chosen,
            np.asarray(spans, dtype=np.int64).reshape(-1, 2),
            [texts[i][start:end] for i, (start, end) in zip(chosen.tolist(), spans, strict=True)],
            np.asarray([rank[name_at[i, span[0]]] for i, span in zip(chosen.tolist(), spans, strict=True)], np.int64),
            order[:10],
        )

    def marked(self, number: int, text: str) -> str:
        """Return a sentence with its word between asterisks."""
        start, end = self.spans[number].tolist()
        return f"{text[:start]}*{text[start:end]}*{text[end:]}"

    def classes(self) -> list[str]:
        """Return the name of the frequency class of each word."""
        return [class_names()[int(np.searchsorted(CLASSES, rank))] for rank in self.ranks]


def class_names() -> list[str]:
    """Return the frequency classes, from the most frequent words to the rarest."""
    ends = [0, *CLASSES]
    named = [f"rank {low + 1:,} to {high:,}" for low, high in zip(ends[:-1], CLASSES, strict=True)]
    return [*named, f"beyond rank {CLASSES[-1]:,}"]


def rank_words(
    masked: Any, words: Words, hidden: Hidden, context: str
) -> Iterator[tuple[list[int], list[float], list[list[tuple[str, float]]]]]:
    """
    Hide each word, and see where the model ranks it among all pieces that are no special token.

    Args:
        masked: A training.masked.MaskedModel.
        words: The sentences, as its tokenizer splits them.
        hidden: The words, each one piece.
        context: What is left of the sentence: one of CONTEXTS. What is not left is hidden as well.

    Yields:
        Batch by batch the rank of each word, 1 the first guess; the logarithm of its probability; and the first
        guesses with their probabilities.
    """
    import torch

    tokenizer = masked.tokenizer
    place_of = {(int(u[SENTENCE]), int(u[START])): int(u[FIRST]) for u in words.uses}
    special = torch.tensor(sorted(set(tokenizer.all_special_ids)))
    data = Tokens.of([words.texts[i] for i in hidden.sentences], tokenizer, max_tokens=max(map(len, words.ids)))
    for at in range(0, len(hidden.sentences), BATCH_SIZE):
        chosen = np.arange(at, min(at + BATCH_SIZE, len(hidden.sentences)))
        ids, numbers = data.batch(chosen)  # both (sentences, tokens)
        places = np.asarray(
            [place_of[int(hidden.sentences[i]), int(hidden.spans[i, 0])] for i in chosen], dtype=np.int64
        )
        rows = np.arange(len(chosen))
        goals = ids[rows, places]
        inside = np.arange(ids.shape[1]) < data.lengths[chosen][:, None]
        apart = np.abs(numbers - numbers[rows, places][:, None])
        gone = np.zeros_like(inside)
        if context != WHOLE:
            gone = (numbers != NO_WORD) & (apart > (REACH if context == NEAR else 0))
        gone[rows, places] = True
        read = np.where(gone, tokenizer.mask_token_id, ids)
        with torch.inference_mode():
            states = masked.model.base_model(
                input_ids=torch.from_numpy(read), attention_mask=torch.from_numpy(inside.astype(np.int64))
            ).last_hidden_state
            logits = masked_logits(masked.model, states[rows, places]).float()
            logits[:, special] = -torch.inf
            logs = torch.log_softmax(logits, dim=-1)
            own = logs[torch.from_numpy(rows), torch.from_numpy(goals)]
            ranks = 1 + (logs > own[:, None]).sum(dim=1)
            best, which = logs.topk(SHOWN, dim=-1)
        guesses = [
            [
                (str(tokenizer.decode([int(token)])).strip(), round(float(p), 5))
                for token, p in zip(line, row, strict=True)
            ]
            for line, row in zip(which, best.exp(), strict=True)
        ]
        yield ranks.tolist(), [round(float(value), 4) for value in own], guesses
