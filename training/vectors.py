"""Sentences to vectors of a base model as it was pretrained: what a linear classifier can be fitted on at once."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import numpy as np
from tqdm import tqdm

from training.base import family, fetch, load_config, longest_input
from training.checkpoint import load_tokenizer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

BATCH_SIZE = 64


def sentence_vectors(base: str, texts: Sequence[str], *, max_tokens: int) -> NDArray[np.float32]:
    """
    Return the mean of all token vectors of each text, scaled to length 1, in the order of the texts.

    Args:
        base: Hub id, local folder, or the default base.
        texts: Raw sentences.
        max_tokens: Longer sentences are cut.

    Returns:
        Shape (len(texts), hidden).

    Raises:
        BaseModelError: the base model cannot be had or is of another family.
    """
    import torch
    from transformers import CONFIG_MAPPING, AutoModel

    config = load_config(base)
    tokenizer = load_tokenizer(base)
    tokenizer.model_max_length = min(max_tokens, longest_input(config))
    head = {} if family(config) == "distilbert" else {"add_pooling_layer": False}
    # Without a head, a checkpoint of ours is what its base was.
    stock = CONFIG_MAPPING[family(config)].from_dict(config.to_dict())
    model = fetch(AutoModel.from_pretrained, base, config=stock, **head).eval()
    ids = tokenizer(list(texts), truncation=True)["input_ids"] if texts else []
    order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
    vectors = np.zeros((len(ids), config.hidden_size), dtype=np.float32)
    with torch.inference_mode():
        for start in tqdm(range(0, len(order), BATCH_SIZE), unit="batch", disable=not sys.stderr.isatty(), leave=False):
            chosen = order[start : start + BATCH_SIZE]
            inputs = tokenizer.pad({"input_ids": [ids[i] for i in chosen]}, return_tensors="pt")
            mask = inputs["attention_mask"].unsqueeze(-1)
            states = model(**inputs).last_hidden_state  # (batch, tokens, hidden)
            means = (states * mask).sum(dim=1) / mask.sum(dim=1)
            vectors[chosen] = torch.nn.functional.normalize(means, dim=-1).numpy()
    return vectors
