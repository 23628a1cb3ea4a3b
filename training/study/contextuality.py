"""How much the vectors of a word depend on its context: what is measured of one set of weights, layer by layer."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from training.study.split import split
from training.study.words import FIRST, KIND, SENTENCE, STOP, Words, layer_names, vectors

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from training.study.split import Split

CONTEXTS = 5  # different sentences that a word must be used in, as in Ethayarajh 2019
MOST_USES = 50  # of each word, drawn at random: more add little to a mean
RANDOM_WORDS = 1000  # whose vectors say how alike any two are in a layer
POOL = 2000  # uses of which sentences of strangers are made, and whose type rows are looked for
NEAREST = 1000  # tokens whose nearest type row is looked for
MOST_VALUES = 2**28  # numbers kept at a time: 1 GiB
SPLIT_USES = 20  # of a word, below which two groups are not looked for
SMALLEST = 4  # uses of a group that is more than stragglers
CHANCE = 0.01  # share of words of one group that would be taken for two
LISTED = 8  # words with their groups
SHOWN = 3  # sentences of each group


@dataclass(frozen=True)
class Drawn:
    """Which uses are measured; numbers of uses are those of `Words.uses`."""

    enough: NDArray[np.int64]  # kinds of enough contexts
    kinds: NDArray[np.int64]  # those of them that are measured: all, but for want of memory
    uses: NDArray[np.int64]  # of these kinds, one kind after the other
    starts: NDArray[np.int64]  # where in `uses` each kind begins, and where the last ends
    random: NDArray[np.int64]  # one use of each of up to 1,000 kinds, whatever their contexts
    pool: NDArray[np.int64]  # any uses: frequent words come more often

    @classmethod
    def of(cls, words: Words, *, values: int, seed: int) -> Drawn:
        """Draw; `values` are the numbers that are kept of a use."""
        generator = np.random.default_rng(seed)
        order = generator.permutation(len(words.uses))
        of_kind: dict[int, list[int]] = defaultdict(list)
        for use in order.tolist():
            of_kind[int(words.uses[use, KIND])].append(use)
        enough = np.flatnonzero(words.contexts() >= CONTEXTS)
        kept: list[int] = []
        total = 0
        for kind in generator.permutation(enough).tolist():
            total += min(MOST_USES, len(of_kind[kind])) * values
            if total > MOST_VALUES:
                break
            kept.append(kind)
        kinds = np.sort(np.asarray(kept, dtype=np.int64))
        uses = [np.sort(of_kind[kind][:MOST_USES]) for kind in kinds.tolist()]
        others = generator.permutation(len(words.names))[:RANDOM_WORDS]
        return cls(
            enough,
            kinds,
            np.concatenate([np.arange(0), *uses]).astype(np.int64),
            np.cumsum([0, *map(len, uses)]),
            np.asarray([of_kind[kind][0] for kind in others.tolist()], dtype=np.int64),
            order[:POOL],
        )

    def is_measurable(self, words: Words) -> bool:
        """Say whether there is a sentence of two words, and a word of one piece to hold against its type row."""
        pool = words.uses[self.pool]
        together = np.bincount(words.uses[:, SENTENCE]).max(initial=0) > 1
        return bool(together and (pool[:, STOP] - pool[:, FIRST] == 1).any())


def measure(model: Any, words: Words, drawn: Drawn, *, seed: int, advance: Callable[[int], None]) -> dict[str, Any]:
    """
    Run all sentences once, and measure everything of one set of weights.

    Args:
        model: An encoder as `subject.load_encoder` gives it.
        words: The sentences and their words.
        drawn: Which uses are measured.
        seed: Draws strangers and samples.
        advance: Is told how many sentences were run.

    Returns:
        Figures by layer, as `words.layer_names` has them: `self_similarity` of each word, `intra_sentence`,
        `explained_variance` and `type_row` with the ends of their 95 % intervals and the baseline of strangers; and
        `split`, the words whose uses fall into two groups.
    """
    wanted = np.unique(np.concatenate([drawn.uses, drawn.random, drawn.pool]))
    kept = np.empty(
        (len(layer_names(model.config.num_hidden_layers)), len(wanted), model.config.hidden_size), np.float32
    )
    alike = []
    for sentences, uses, found in vectors(model, words):
        place = np.searchsorted(wanted, uses)
        inside = (place < len(wanted)) & (wanted[np.minimum(place, len(wanted) - 1)] == uses)
        kept[:, place[inside]] = found[:, inside]
        alike.append(_intra(found, words.uses[uses, SENTENCE]))
        advance(sentences)
    intra = np.concatenate(alike, axis=1)  # (layers, sentences of two words or more)

    def of(uses: NDArray[np.int64]) -> NDArray[np.float32]:
        return kept[:, np.searchsorted(wanted, uses)]

    generator = np.random.default_rng(seed)
    random = of(drawn.random)
    baseline = [_pairs(unit(layer)) for layer in random]
    bounds = list(zip(drawn.starts[:-1], drawn.starts[1:], strict=True))
    own = of(drawn.uses)
    similar = np.asarray([[_pairs(unit(layer[a:b])) for layer in own] for a, b in bounds])  # (kinds, layers)
    explained = np.asarray([[_first_share(layer[a:b]) for layer in own] for a, b in bounds])
    by_size = {size: _strangers_share(random, size, generator) for size in sorted({b - a for a, b in bounds})}
    expected = np.asarray([by_size[b - a] for a, b in bounds])
    sizes = np.bincount(words.uses[:, SENTENCE])
    return {
        "self_similarity": {"words": np.round(similar, 5).tolist(), "baseline": baseline},
        "intra_sentence": interval(intra.T) | {"baseline": _intra_strangers(of(drawn.pool), sizes, generator)},
        "explained_variance": interval(explained)
        | {"baseline": expected.mean(axis=0).tolist()}
        | {f"adjusted_{key}": value for key, value in interval(explained - expected).items()},
        "type_row": _type_rows(model, words, drawn.pool, of),
        "split": _splits(own[-1], bounds, words, drawn, random[-1].mean(axis=0), generator),
    }


def unit(vectors: NDArray[Any]) -> NDArray[np.float64]:
    """Return vectors scaled to length 1, along the last axis."""
    wide = vectors.astype(np.float64)
    scaled: NDArray[np.float64] = wide / np.maximum(np.linalg.norm(wide, axis=-1, keepdims=True), 1e-12)
    return scaled


def _pairs(directions: NDArray[np.float64]) -> float:
    """Return the mean cosine of all pairs of different vectors of length 1, shape (vectors, hidden)."""
    count = len(directions)
    return float((np.square(directions.sum(axis=0)).sum() - count) / (count * (count - 1))) if count > 1 else 1.0


def _first_share(vectors: NDArray[np.float32]) -> float:
    """Return the first singular value's square over the sum of all: 1 where one direction is all there is."""
    values = np.linalg.eigvalsh(vectors.astype(np.float64) @ vectors.T.astype(np.float64))
    return float(values[-1] / max(values.sum(), 1e-12))


def _strangers_share(random: NDArray[np.float32], size: int, generator: np.random.Generator) -> list[float]:
    """Return what `_first_share` gives for so many uses of different words, layer by layer: the mean of five draws."""
    drawn = [generator.permutation(random.shape[1])[:size] for _ in range(5)]
    return [float(np.mean([_first_share(layer[chosen]) for chosen in drawn])) for layer in random]


def _intra(found: NDArray[np.float32], sentence: NDArray[np.int64]) -> NDArray[np.float64]:
    """
    Return the mean cosine of the words of each sentence to their mean, shape (layers, sentences of two words or more).

    Args:
        found: Vectors, shape (layers, uses, hidden).
        sentence: Of each use; those of a sentence are neighbours. Shape (uses,).
    """
    starts = np.flatnonzero(np.diff(sentence, prepend=-1))
    sizes = np.diff([*starts, len(sentence)])
    if not len(starts):
        return np.zeros((len(found), 0))
    means = np.add.reduceat(found, starts, axis=1)  # the sum has the direction of the mean
    cosines = (unit(found) * np.repeat(unit(means), sizes, axis=1)).sum(axis=2)
    return (np.add.reduceat(cosines, starts, axis=1) / sizes)[:, sizes > 1]


def _intra_strangers(
    pool: NDArray[np.float32], sizes: NDArray[np.int64], generator: np.random.Generator
) -> list[float]:
    """Return what `_intra` gives for sentences as long as the real ones, made of words of any sentences."""
    lengths = np.minimum(generator.permutation(sizes[sizes > 1])[:RANDOM_WORDS], pool.shape[1])
    drawn = [generator.permutation(pool.shape[1])[:length] for length in lengths.tolist()]
    sentence = np.repeat(np.arange(len(drawn)), lengths)
    if not drawn:
        return [0.0] * len(pool)
    flat = np.concatenate(drawn)
    return [float(_intra(layer[None, flat], sentence).mean()) for layer in pool]


def _type_rows(model: Any, words: Words, pool: NDArray[np.int64], of: Any) -> dict[str, Any]:
    """Hold tokens against the rows of the word-embedding matrix: their own one, any other one, and the nearest."""
    single = pool[words.uses[pool, STOP] - words.uses[pool, FIRST] == 1][:NEAREST]
    own = np.asarray([words.pieces[kind][0] for kind in words.uses[single, KIND]], dtype=np.int64)
    rows = unit(model.get_input_embeddings().weight.detach().numpy()).astype(np.float32)
    mean = rows.mean(axis=0)
    cosines, nearest, others = [], [], []
    for layer in of(single):
        tokens = unit(layer).astype(np.float32)
        cosines.append((tokens * rows[own]).sum(axis=1))
        best = np.concatenate([(tokens[at : at + 250] @ rows.T).argmax(axis=1) for at in range(0, len(tokens), 250)])
        nearest.append(float((best == own).mean()))
        others.append(float((tokens @ mean).mean()))
    return {"tokens": len(single), "other": others, "nearest": nearest} | interval(np.asarray(cosines).T)


def _splits(
    top: NDArray[np.float32],
    bounds: Sequence[tuple[int, int]],
    words: Words,
    drawn: Drawn,
    middle: NDArray[np.float32],
    generator: np.random.Generator,
) -> dict[str, Any]:
    """Look for two groups among the uses of each word in the highest layer, less what all words have in common."""
    found = [
        (kind, first, split(unit(top[first:stop] - middle).astype(np.float32), generator))
        for kind, (first, stop) in zip(drawn.kinds.tolist(), bounds, strict=True)
        if stop - first >= SPLIT_USES
    ]
    clear = [part for part in found if part[2].p <= CHANCE and part[2].second.sum() >= SMALLEST]
    clear.sort(key=lambda part: -part[2].excess)

    def told(kind: int, first: int, parted: Split) -> dict[str, Any]:
        uses = drawn.uses[first : first + len(parted.second)]
        vectors = unit(top[first : first + len(uses)] - middle)
        examples = []
        for side in (~parted.second, parted.second):
            nearest = np.argsort(-(vectors[side] @ vectors[side].mean(axis=0)))
            sentences = dict.fromkeys(words.marked(use) for use in uses[side][nearest].tolist())
            examples.append(list(sentences)[:SHOWN])
        return {
            "word": words.names[kind],
            "uses": len(uses),
            "second": int(parted.second.sum()),
            "silhouette": parted.silhouette,
            "expected": parted.expected,
            "excess": parted.excess,
            "examples": examples,
            "plane": [
                [round(float(x), 4), round(float(y), 4), int(group), words.marked(int(use))]
                for (x, y), group, use in zip(parted.plane, parted.second, uses, strict=True)
            ],
        }

    return {"tried": len(found), "clear": len(clear), "words": [told(*part) for part in clear[:LISTED]]}


def interval(values: NDArray[Any]) -> dict[str, list[float]]:
    """Return mean, and the ends of its 95 % confidence interval, of each column."""
    values = np.asarray(values, dtype=np.float64)
    mean = values.mean(axis=0)
    half = 1.96 * values.std(axis=0, ddof=1) / np.sqrt(len(values)) if len(values) > 1 else np.zeros_like(mean)
    return {"mean": mean.tolist(), "low": (mean - half).tolist(), "high": (mean + half).tolist()}
