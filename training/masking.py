"""Whole words to be guessed: which tokens of a batch are hidden, and what stands in their place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from training.corpus import NO_WORD

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Masking:
    """
    Whole-word masking (the variant that BERT's authors released in 2019) with the shares of Devlin et al. 2018.

    Of each text words are chosen at random, as many as a share of its tokens (15 %) has room for, and one at least. Of
    their tokens 80 % become the mask token, 10 % any token, and 10 % stay as they are; all of them are to be guessed.
    """

    mask_id: int
    others: NDArray[np.int64]  # ids that may stand in place of a token: all but the special ones
    share: float

    @classmethod
    def of(cls, tokenizer: Any, *, share: float) -> Masking:
        """Make the masking of a tokenizer."""
        ids = np.arange(len(tokenizer))
        return cls(tokenizer.mask_token_id, ids[~np.isin(ids, tokenizer.all_special_ids)], share)

    def choose(self, words: NDArray[np.int64], generator: np.random.Generator) -> NDArray[np.bool_]:
        """
        Choose words of each text.

        Args:
            words: Word number of each token, NO_WORD where there is none; the tokens of a word are neighbours.
                Shape (texts, tokens).
            generator: Decides; the same one chooses the same words.

        Returns:
            True for the tokens of chosen words, shape (texts, tokens).
        """
        texts, tokens = words.shape
        before = np.pad(words, ((0, 0), (1, 0)), constant_values=NO_WORD)[:, :-1]
        # Numbered from 0 in each text, whatever numbers they had; column `tokens` is where no word goes.
        places = np.where(words == NO_WORD, tokens, np.cumsum((words != before) & (words != NO_WORD), axis=1) - 1)
        sizes = np.zeros((texts, tokens + 1), dtype=np.int64)
        np.add.at(sizes, (np.arange(texts)[:, None], places), 1)
        sizes[:, tokens] = 0
        room = np.maximum(1, np.rint(self.share * sizes.sum(axis=1))).astype(np.int64)
        order = np.argsort(np.where(sizes, generator.random(sizes.shape), 2.0), axis=1)  # words first, in random order
        rows = np.arange(texts)
        chosen = np.zeros(sizes.shape, dtype=bool)
        for rank in range(int((sizes > 0).sum(axis=1).max(initial=0))):
            word = order[:, rank]
            size = sizes[rows, word]
            fits = (size > 0) & (size <= room)
            chosen[rows, word] = fits
            room -= np.where(fits, size, 0)
        without = ~chosen.any(axis=1) & (sizes.sum(axis=1) > 0)  # all words longer than the share: the first one drawn
        chosen[rows[without], order[without, 0]] = True
        chosen[:, tokens] = False
        return np.take_along_axis(chosen, places, axis=1)

    def hide(
        self, ids: NDArray[np.int64], words: NDArray[np.int64], generator: np.random.Generator
    ) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """
        Return what the model reads in place of `ids`, and which tokens it is to guess; each of shape (texts, tokens).

        Args:
            ids: Token ids, shape (texts, tokens).
            words: As `choose` takes them.
            generator: Decides; the same one hides the same tokens in the same way.
        """
        chosen = self.choose(words, generator)
        lot = generator.random(ids.shape)
        read = np.where(chosen & (lot < 0.8), self.mask_id, ids)
        return np.where(chosen & (lot >= 0.9), generator.choice(self.others, ids.shape), read), chosen
