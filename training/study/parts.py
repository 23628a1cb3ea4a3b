"""The parts of a classifier: embeddings, layers and head, and what each layer is made of."""

from __future__ import annotations

import copy
import re
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

EMBEDDINGS, HEAD = "embeddings", "head"
UNMOVED = 1e-9  # relative drift below which a part is as it was
MODULES = ("query", "key", "value", "attention output", "feed-forward in", "feed-forward out", "layer norms")
TABLES = ("word embeddings", "position embeddings", "segment embeddings", "layer norm of the embeddings")
_MODULES = (  # in the names that BERT, RoBERTa and DistilBERT give them
    (r"LayerNorm|layer_norm", "layer norms"),
    (r"query|q_lin", "query"),
    (r"key|k_lin", "key"),
    (r"value|v_lin", "value"),
    (r"attention\.output|out_lin", "attention output"),
    (r"intermediate|lin1", "feed-forward in"),
    (r"output\.dense|lin2", "feed-forward out"),
)
_TABLES = (
    ("word_embeddings", "word embeddings"),
    ("position_embeddings", "position embeddings"),
    ("token_type_embeddings", "segment embeddings"),
    ("LayerNorm", "layer norm of the embeddings"),
)


@dataclass(frozen=True)
class Part:
    """Where a weight belongs."""

    block: str  # embeddings, layer 1 and so on upwards, or head
    module: str  # one of MODULES, of TABLES, or head


def part_of(name: str) -> Part:
    """Return where a parameter belongs, by the name it has in a BERT, RoBERTa or DistilBERT classifier."""
    if found := re.search(r"\.layer\.(\d+)\.(.*)", name):
        module = next(ours for pattern, ours in _MODULES if re.search(pattern, found[2]))
        return Part(layer_name(int(found[1]) + 1), module)
    if ".embeddings." in name:
        return Part(EMBEDDINGS, next(ours for pattern, ours in _TABLES if pattern in name))
    return Part(HEAD, HEAD)


def layer_name(number: int) -> str:
    """Return what a layer is called; 1 is the lowest."""
    return f"layer {number}"


def blocks(model: Any) -> list[str]:
    """Return the blocks of a model, from the embeddings up to the head."""
    layers = [layer_name(number) for number in range(1, model.config.num_hidden_layers + 1)]
    return [EMBEDDINGS, *layers, HEAD]


def drift(start: Any, end: Any) -> dict[tuple[str, str], float | None]:
    """
    Return how far each part of a model moved: the length of its change, as a share of the length it started with.

    Args:
        start: A model.
        end: The same model, later.

    Returns:
        By block and module, and by block and "all" for all of a block. Weights and biases of a module are one vector.
        None for what was all zeros.
    """
    squares: dict[tuple[str, str], list[float]] = defaultdict(lambda: [0.0, 0.0])
    after = dict(end.named_parameters())
    with torch.no_grad():
        for name, before in start.named_parameters():
            part = part_of(name)
            moved = float((after[name].double() - before.double()).square().sum())
            size = float(before.double().square().sum())
            for key in {(part.block, part.module), (part.block, "all")}:
                squares[key][0] += moved
                squares[key][1] += size
    return {key: (moved / size) ** 0.5 if size else None for key, (moved, size) in squares.items()}


def rolled_back(start: Any, end: Any, back: Collection[str]) -> Any:
    """Return a copy of `end` whose blocks named in `back` have the weights of `start`."""
    model = copy.deepcopy(end)
    before = dict(start.named_parameters())
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if part_of(name).block in back:
                parameter.copy_(before[name])
    return model


def rollbacks(layers: int) -> Mapping[str, tuple[str, ...]]:
    """
    Return which blocks each roll-back takes back to the start: by its name, from all to nothing.

    Args:
        layers: How many the model has.
    """
    names = [layer_name(number) for number in range(1, layers + 1)]
    found: dict[str, tuple[str, ...]] = {
        "nothing": (),
        "everything": (EMBEDDINGS, *names, HEAD),
        "embeddings": (EMBEDDINGS,),
        HEAD: (HEAD,),
    }
    found |= {name: (name,) for name in names}
    found |= {f"lowest {k}": tuple(names[:k]) for k in range(2, layers + 1)}
    found |= {f"highest {k}": tuple(names[-k:]) for k in range(2, layers)}
    return found
