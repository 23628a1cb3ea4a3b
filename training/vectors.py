"""Sentences to vectors of a base model as it was pretrained: what a linear classifier can be fitted on at once."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from training.base import family, fetch, load_config, longest_input
from training.checkpoint import load_tokenizer

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import torch
    from numpy.typing import NDArray

BATCH_SIZE = 64


def sentence_vectors(
    base: str, texts: Sequence[str], *, max_tokens: int, detokenize: str | None = None
) -> NDArray[np.float32]:
    """
    Return the mean of all token vectors of each text, scaled to length 1, in the order of the texts.

    Args:
        base: Hub id, local folder, or the default base.
        texts: Raw sentences.
        max_tokens: Longer sentences are cut.
        detokenize: As `load_tokenizer` takes it.

    Returns:
        Shape (len(texts), hidden).

    Raises:
        BaseModelError: the base model cannot be had or is of another family.
    """
    vectors = np.zeros((len(texts), load_config(base).hidden_size), dtype=np.float32)
    for chosen, output, mask in _read(base, texts, max_tokens=max_tokens, detokenize=detokenize):
        vectors[chosen] = _mean(output.last_hidden_state, mask)
    return _unit(vectors)


def layered_vectors(
    base: str, texts: Sequence[str], *, max_tokens: int, detokenize: str | None = None
) -> NDArray[np.float32]:
    """
    Return what several layers say of each text, in the order of the texts: what a linear classifier tells most by.

    The mean of the token vectors below the first layer, of the middle one and of the highest; the first word piece's
    vector of the middle and of the highest; the highest one's of the first token. Lower layers still have words and
    word order, of which the highest has made meaning (Tenney et al. 2019, arXiv:1905.05950), and what a question asks
    for, its first word tells. From each of the six its mean over all texts is taken, and what is left is scaled to one
    length.

    Args:
        base: Hub id, local folder, or the default base.
        texts: Raw sentences, all that are to be compared.
        max_tokens: Longer sentences are cut.
        detokenize: As `load_tokenizer` takes it.

    Returns:
        Shape (len(texts), 6 x hidden), each of length 1.

    Raises:
        BaseModelError: the base model cannot be had or is of another family.
    """
    hidden = load_config(base).hidden_size
    vectors = np.zeros((len(texts), 6, hidden), dtype=np.float32)
    for chosen, output, mask in _read(
        base, texts, max_tokens=max_tokens, detokenize=detokenize, output_hidden_states=True
    ):
        states = output.hidden_states
        low, middle, high = states[0], states[len(states) // 2], states[-1]
        word = min(1, high.shape[1] - 1)  # a tokenizer without special tokens makes texts of one
        parts = [*(_mean(layer, mask) for layer in (low, middle, high)), middle[:, word], high[:, word], high[:, 0]]
        for part, values in enumerate(parts):
            vectors[chosen, part] = values
    if len(texts):
        vectors -= vectors.mean(axis=0)
    return _unit(_unit(vectors).reshape(len(texts), 6 * hidden))


def _read(
    base: str, texts: Sequence[str], *, max_tokens: int, detokenize: str | None, **options: bool
) -> Iterator[tuple[list[int], Any, torch.Tensor]]:
    """Give batches of texts: their places, what the encoder says with `options`, and the mask, (batch, tokens, 1)."""
    import torch
    from transformers import CONFIG_MAPPING, AutoModel

    config = load_config(base)
    tokenizer = load_tokenizer(base, detokenize=detokenize)
    tokenizer.model_max_length = min(max_tokens, longest_input(config))
    head = {} if family(config) == "distilbert" else {"add_pooling_layer": False}
    # Without a head, a checkpoint of ours is what its base was.
    stock = CONFIG_MAPPING[family(config)].from_dict(config.to_dict())
    model = fetch(AutoModel.from_pretrained, base, config=stock, **head).eval()
    ids = tokenizer(list(texts), truncation=True)["input_ids"] if texts else []
    order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
    for start in tqdm(range(0, len(order), BATCH_SIZE), unit="batch", disable=not sys.stderr.isatty(), leave=False):
        chosen = order[start : start + BATCH_SIZE]
        inputs = tokenizer.pad({"input_ids": [ids[i] for i in chosen]}, return_tensors="pt")
        with torch.inference_mode():
            output = model(**inputs, **options)
        yield chosen, output, inputs["attention_mask"].unsqueeze(-1)


def _mean(states: torch.Tensor, mask: torch.Tensor) -> NDArray[np.float32]:
    """Return the mean of the token vectors of each text, shape (batch, hidden)."""
    means: NDArray[np.float32] = ((states * mask).sum(dim=1) / mask.sum(dim=1)).numpy()
    return means


def _unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scale to length 1 what has a length."""
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    scaled: NDArray[np.float32] = vectors / np.maximum(lengths, np.finfo(np.float32).tiny)
    return scaled
