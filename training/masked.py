"""A masked language model: what it guesses for a hidden word, and how likely it finds a sentence."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import transformers

from inference.errors import InputError
from training.base import ATTENTION_DROPOUT, HEAD_SETTINGS, family, fetch, load_config, longest_input
from training.checkpoint import load_tokenizer
from training.corpus import NO_WORD, Tokens
from training.errors import BaseModelError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

MASK = "[MASK]"  # stands for the mask token of any tokenizer
MARKED = re.compile(r"\[\[\s*(\S.*?)\s*\]\]")
BATCH_TOKENS = 4096  # of one call, padding included: bounds memory


@dataclass(frozen=True)
class Guess:
    """A piece of the vocabulary that may stand in a blank."""

    token: str  # as it reads in text; a piece that goes on a word keeps its ##
    probability: float


@dataclass(frozen=True)
class Blank:
    """A hidden word of a text, and what the model would put there."""

    word: str | None  # the marked word; None for a mask token
    guesses: tuple[Guess, ...]  # most probable first
    probability: float | None  # of the marked word; of one of several pieces their product, each given the ones before


@dataclass(frozen=True)
class Likelihood:
    """What a model makes of one text: the logarithm (natural) of the probability of each token in its place."""

    tokens: tuple[str, ...]  # without special and unknown ones
    log_probabilities: tuple[float, ...]

    @property
    def total(self) -> float:
        """The pseudo-log-likelihood of the text; 0 where it has no token."""
        return math.fsum(self.log_probabilities)


@dataclass(frozen=True)
class PseudoPerplexity:
    """How surprising texts are to a model: 1 where it knows every token, the vocabulary's size where it guesses."""

    value: float  # exp of the mean negative pseudo-log-likelihood of a token; nan where there is no token
    tokens: int
    texts: tuple[Likelihood, ...]


@dataclass(frozen=True)
class MaskedModel:
    """A model with its masked-language-model head, in evaluation mode, and its tokenizer."""

    model: Any  # transformers.PreTrainedModel
    tokenizer: Any  # transformers.PreTrainedTokenizerFast
    has_head: bool  # False: the head is a new one that has learnt nothing

    @classmethod
    def load(cls, source: str) -> MaskedModel:
        """
        Load a masked language model: a folder, a hub id, or the default base.

        Raises:
            BaseModelError: it cannot be had, is of another family, or has no head to guess with.
        """
        masked = cls.start(source)
        if not masked.has_head:
            raise BaseModelError(
                f"{source}: has no masked-language-model head, so it cannot guess words; "
                f"give it one with `bertrand pretrain CORPUS --base {source} --out DIR`, or name a base that has one"
            )
        return masked

    @classmethod
    def start(cls, source: str, *, dropout: float | None = None) -> MaskedModel:
        """
        Load a base model to pretrain it further; one without a head gets a new one.

        A new head's decoder is tied to the word embeddings, and the rest of it is drawn from Torch's generator.

        Args:
            source: Hub id, folder, or `minilm`.
            dropout: Share of the activations that is dropped while it learns; None for what the base has.

        Raises:
            BaseModelError: it cannot be had, is of another family, or its tokenizer has no mask token.
        """
        config = load_config(source)
        tokenizer = load_tokenizer(source)
        if tokenizer.mask_token_id is None:
            raise BaseModelError(f"{source}: its tokenizer has no mask token; expected one as BERT's has")
        # Without its head, a classifier of ours is what its base was.
        kept = {name: value for name, value in config.to_dict().items() if name not in HEAD_SETTINGS}
        stock = transformers.CONFIG_MAPPING[family(config)].from_dict(kept)
        setattr(stock, ATTENTION_DROPOUT[family(config)], 0.0)
        if dropout is not None:
            setattr(stock, "dropout" if family(config) == "distilbert" else "hidden_dropout_prob", dropout)
        build = transformers.AutoModelForMaskedLM.from_pretrained
        model, found = fetch(build, source, config=stock, output_loading_info=True)
        has_head = all(name.startswith(f"{model.base_model_prefix}.") for name in found["missing_keys"])
        tokenizer.model_max_length = min(tokenizer.model_max_length, longest_input(stock))
        return cls(model.float().eval(), tokenizer, has_head)

    def guesses(self, text: str, top_k: int = 10) -> tuple[Blank, ...]:
        """Return what the model would put in each blank of a text, all of them hidden at once; see `guesses`."""
        return guesses(self.model, self.tokenizer, text, top_k)

    def pseudo_log_likelihoods(self, texts: Sequence[str], *, whole_words: bool = False) -> tuple[Likelihood, ...]:
        """Return the likelihood of each text, in their order; see `pseudo_perplexity`."""
        return pseudo_perplexity(self.model, self.tokenizer, texts, whole_words=whole_words).texts


def guesses(model: Any, tokenizer: Any, text: str, top_k: int = 10) -> tuple[Blank, ...]:
    """
    Return what a masked language model would put in each blank of a text.

    Args:
        model: A Transformers model with a masked-language-model head.
        tokenizer: Its tokenizer.
        text: Holds one or several blanks: `[MASK]` (or the tokenizer's own mask token), or a word marked as in
            `I sat by the [[bank]] of the river`, in whose place one mask token stands.
        top_k: Guesses a blank; special tokens are none.

    Returns:
        The blanks in the order of the text.

    Raises:
        InputError: the text has no blank, or too many tokens; or `top_k` is below 1.
    """
    if top_k < 1:
        raise InputError(f"top_k is {top_k}; expected at least 1")
    mask = tokenizer.mask_token
    text = text.replace(MASK, mask)
    found = list(re.finditer(rf"{MARKED.pattern}|{re.escape(mask)}", text))
    if not found:
        raise InputError(f"{text[:60]!r}: has no blank; put {MASK} in the place of a word, or mark one as [[word]]")
    ids = np.asarray(tokenizer(MARKED.sub(mask, text))["input_ids"])
    if len(ids) > tokenizer.model_max_length:
        raise InputError(f"text has {len(ids)} tokens; expected at most {tokenizer.model_max_length}")
    places = np.flatnonzero(ids == tokenizer.mask_token_id)
    rows = _log_probabilities(model, ids[None], np.ones_like(ids)[None], np.zeros_like(places), places)
    blanks = []
    for blank, row in zip(found, rows, strict=True):
        allowed = row.copy()
        allowed[tokenizer.all_special_ids] = -np.inf
        best = np.argsort(-allowed, kind="stable")[: min(top_k, int(np.isfinite(allowed).sum()))]
        likely = tuple(Guess(tokenizer.decode([token]).strip(), float(np.exp(row[token]))) for token in best)
        before, after = MARKED.sub(mask, text[: blank.start()]), MARKED.sub(mask, text[blank.end() :])
        probability = _word_probability(model, tokenizer, before, blank[1], after) if blank[1] else None
        blanks.append(Blank(blank[1], likely, probability))
    return tuple(blanks)


def pseudo_perplexity(
    model: Any,
    tokenizer: Any,
    texts: Sequence[str],
    *,
    max_tokens: int | None = None,
    whole_words: bool = False,
) -> PseudoPerplexity:
    """
    Measure how well a masked language model foresees texts, every token hidden in turn.

    The pseudo-perplexity of Salazar et al. 2020 (arXiv:1910.14659). Those of two models compare only where
    both have the same vocabulary. Special and unknown tokens are not scored.

    Args:
        model: A Transformers model with a masked-language-model head.
        tokenizer: Its tokenizer.
        texts: Raw sentences.
        max_tokens: Longer texts are cut; None: at what the tokenizer allows.
        whole_words: Hide the later pieces of the same word too: a rare word's pieces otherwise give each other away
            (PLL-word-l2r of Kauf and Ivanova 2023, arXiv:2305.10588).
    """
    data = Tokens.of(texts, tokenizer, max_tokens=tokenizer.model_max_length if max_tokens is None else max_tokens)
    scored = np.flatnonzero(data.words != NO_WORD)  # tokens, in the flat order
    owner = np.repeat(np.arange(len(data)), data.lengths)[scored]
    place = scored - data.starts[owner]
    scores = np.zeros(len(scored), dtype=np.float64)
    order = np.argsort(data.lengths[owner], kind="stable")
    start = 0
    while start < len(order):
        # Lengths only grow: what the first row alone allows may be too much for the last.
        rows = order[start : start + max(1, BATCH_TOKENS // int(data.lengths[owner[order[start]]]))]
        rows = rows[: max(1, BATCH_TOKENS // int(data.lengths[owner[rows[-1]]]))]
        start += len(rows)
        ids, words = data.batch(owner[rows])
        at = place[rows][:, None]
        places = np.arange(ids.shape[1])
        hidden = places == at
        if whole_words:
            hidden |= (places > at) & (words == np.take_along_axis(words, at, axis=1))
        goals = np.take_along_axis(ids, at, axis=1)[:, 0]
        inside = places < data.lengths[owner[rows]][:, None]
        read = np.where(hidden, tokenizer.mask_token_id, ids)
        found = _log_probabilities(model, read, inside.astype(np.int64), np.arange(len(rows)), place[rows])
        scores[rows] = found[np.arange(len(rows)), goals]
    names = tokenizer.convert_ids_to_tokens(data.ids[scored].tolist())
    bounds = np.searchsorted(owner, np.arange(len(data) + 1))
    likelihoods = tuple(
        Likelihood(tuple(names[low:high]), tuple(scores[low:high].tolist())) for low, high in pairwise(bounds)
    )
    with np.errstate(over="ignore"):  # infinite, of a model that diverged
        value = float(np.exp(-scores.mean())) if len(scores) else math.nan
    return PseudoPerplexity(value, len(scored), likelihoods)


def masked_logits(model: Any, states: torch.Tensor) -> torch.Tensor:
    """
    Apply the masked-language-model head to token vectors alone, as many as are to be guessed.

    The models' own `forward` applies it to every token, which with a large vocabulary costs more than the rest.

    Args:
        model: A Transformers model for masked language modelling, of a supported family.
        states: Vectors of the encoder's last layer, shape (tokens, hidden).

    Returns:
        Shape (tokens, vocabulary).
    """
    kind = family(model.config)
    if kind == "distilbert":
        transformed = model.vocab_layer_norm(model.activation(model.vocab_transform(states)))
        return model.vocab_projector(transformed)  # type: ignore[no-any-return]
    head = model.lm_head if kind == "roberta" else model.cls
    return head(states)  # type: ignore[no-any-return]


def head_parameters(model: Any) -> list[Any]:
    """Return the head's own parameters: all but those of the decoder that are the word embeddings."""
    own = {id(parameter) for parameter in model.base_model.parameters()}
    return [parameter for parameter in model.parameters() if id(parameter) not in own]


def _log_probabilities(
    model: Any, ids: NDArray[np.int64], mask: NDArray[np.int64], rows: NDArray[np.int64], places: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Return the log-probability of every piece of the vocabulary at `places` of `rows`, shape (places, vocabulary)."""
    with torch.inference_mode():
        output = model.base_model(input_ids=torch.from_numpy(ids), attention_mask=torch.from_numpy(mask))
        logits = masked_logits(model, output.last_hidden_state[rows, places]).float()
        return torch.log_softmax(logits, dim=-1).numpy()


def _word_probability(model: Any, tokenizer: Any, before: str, word: str, after: str) -> float | None:
    """Return the probability of a word between two texts, piece by piece from the left; None where one is unknown."""
    encoding = tokenizer(before + word + after, truncation=True).encodings[0]
    # Byte-level pieces take the blank before a word along, or have it as a piece of its own.
    start, end = len(before) - before[-1:].isspace(), len(before) + len(word)
    spans = zip(encoding.offsets, encoding.word_ids, strict=True)
    pieces = [i for i, ((low, high), of) in enumerate(spans) if low < end and high > start and of is not None]
    goals = np.asarray(encoding.ids)[pieces]
    if not pieces or tokenizer.unk_token_id in goals:
        return None
    read = np.asarray(encoding.ids)
    read[pieces] = tokenizer.mask_token_id
    total = 0.0
    for place, goal in zip(pieces, goals, strict=True):
        row = _log_probabilities(model, read[None], np.ones_like(read)[None], np.array([0]), np.array([place]))
        total += float(row[0, goal])
        read[place] = goal
    return math.exp(total)
