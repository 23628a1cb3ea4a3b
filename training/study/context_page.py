"""The page of the study of contexts: what is said of its figures follows from them."""

from __future__ import annotations

from itertools import zip_longest
from typing import TYPE_CHECKING, Any

import numpy as np

from training import charts
from training.study.contextuality import CHANCE, CONTEXTS, MOST_USES, RANDOM_WORDS, SMALLEST, SPLIT_USES, interval
from training.study.page import Report, Section, Table, about_base, percent, points
from training.study.subject import PRETRAINED, RANDOM, TUNED
from training.wording import counted, joined

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

SLIGHT = 0.02  # difference of cosines that nobody would call one
EXAMPLES = 3  # words whose groups are shown by sentences


def report(record: Mapping[str, Any]) -> Report:
    """Make the page of what study.json holds."""
    found = _Found(record)
    sections = [_self_section(found), _intra_section(found), _explained_section(found), _type_section(found)]
    sections += [_words_section(found), _split_section(found)]
    if record["result"]["nearest"]:
        sections.append(_nearest_section(found))
    top = found.top
    tiles = [
        ("Two uses of a word", f"{found.similar(PRETRAINED, 0):.3f}", "mean cosine at the type rows"),
        *(
            (
                f"Two uses, {name}",
                f"{found.similar(name, -1):.3f}",
                f"{top}; two different words: {found.base(name, -1):.3f}",
            )
            for name in found.names
        ),
        (
            "Own type row is the nearest",
            percent(found.weights[PRETRAINED]["type_row"]["nearest"][-1]),
            f"of tokens {top}",
        ),
    ]
    return Report(
        "Is there a vector for each token?",
        f"How much the vectors of a word differ from sentence to sentence, layer by layer, on {found.corpus}.",
        [_answer_uses(found), _answer_random(found), *_answer_tuned(found), _answer_rows(found), _answer_split(found)],
        tiles,
        sections,
        [*_about(record, found), *about_base(record["settings"]["base"])],
    )


class _Found:
    """What study.json holds of this study, ready to be told."""

    def __init__(self, record: Mapping[str, Any]) -> None:
        result = record["result"]
        self.result = result
        self.corpus: str = record["settings"]["corpus"]["file"]
        self.is_before_and_after = record["settings"]["start"] == "pretrained"
        self.weights: Mapping[str, Any] = result["weights"]
        self.names = list(self.weights)
        self.words: Mapping[str, Any] = result["words"]
        self.layers = len(result["layers"]) - 2
        self.top = f"after layer {self.layers}"

    def uses(self, name: str) -> NDArray[np.float64]:
        """Self-similarity of each word after each layer, shape (words, layers)."""
        return np.asarray(self.weights[name]["self_similarity"]["words"])

    def base(self, name: str, layer: int) -> float:
        """Cosine of two different words."""
        return float(self.weights[name]["self_similarity"]["baseline"][layer])

    def similar(self, name: str, layer: int) -> float:
        """Cosine of two uses of a word, the mean of all words."""
        return float(self.uses(name)[:, layer].mean())

    def adjusted(self, name: str, layer: int) -> float:
        """What is of it above two different words."""
        return self.similar(name, layer) - self.base(name, layer)

    def gap(self, name: str, other: str) -> tuple[float, float, float]:
        """Adjusted self-similarity in the highest layer, of one minus another, with its 95 % interval over words."""
        return self._compared(name, other, lambda values: values[..., -1])

    def moved(self, name: str) -> float:
        """By how much the layers change adjusted self-similarity, from the embeddings to the highest."""
        return self.adjusted(name, -1) - self.adjusted(name, 1)

    def moved_more(self, name: str, other: str) -> tuple[float, float, float]:
        """`moved` of one minus that of another, with its 95 % interval over the words."""
        return self._compared(name, other, lambda values: values[..., -1] - values[..., 1])

    def _compared(self, name: str, other: str, figure: Callable[[Any], Any]) -> tuple[float, float, float]:
        difference = figure(self.uses(name)) - figure(self.uses(other))
        base, other_base = (np.asarray(self.weights[key]["self_similarity"]["baseline"]) for key in (name, other))
        middle = float(difference.mean()) - float(figure(base)) + float(figure(other_base))
        half = 1.96 * float(difference.std(ddof=1)) / len(difference) ** 0.5 if len(difference) > 1 else 1.0
        return middle, middle - half, middle + half

    def lines(self, figure: str) -> list[charts.Line]:
        """Means with their intervals, a line for each weights."""
        return [
            charts.Line(
                name,
                self.points(values["mean"]),
                list(zip(values["low"], values["high"], strict=True)),
            )
            for name in self.names
            for values in [self.weights[name][figure]]
        ]

    def points(self, values: Sequence[float]) -> list[tuple[float, float]]:
        """Values by layer."""
        return [(layer - 1.0, float(value)) for layer, value in enumerate(values)]

    def draw(self, title: str, lines: Sequence[charts.Line], y: str) -> Any:
        """Draw values over the layers."""
        step = 1 if self.layers <= 12 else 2 if self.layers <= 24 else 4
        ticks = [-1.0, *(float(layer) for layer in range(0, self.layers, step)), float(self.layers)]
        return charts.lines(title, lines, x="layer (-1: type rows, 0: embeddings)", y=y, x_ticks=ticks)


def _way(gap: tuple[float, float, float], more: str, less: str, same: str) -> str:
    """Choose words by where the interval of a difference lies."""
    _, low, high = gap
    return more if low > 0 else less if high < 0 else same


def _answer_uses(found: _Found) -> str:
    types, last, other = found.similar(PRETRAINED, 0), found.similar(PRETRAINED, -1), found.base(PRETRAINED, -1)
    begin = f"A word has one row of the embedding matrix: there, any two of its uses have a cosine of {types:.3f}."
    if last > 0.98:
        return (
            f"{begin} {found.top.capitalize()} of the {PRETRAINED} weights it is {last:.3f}: nearly one vector for a "
            "word "
            "still, whatever sentence it stands in."
        )
    return (
        f"{begin} {found.top.capitalize()} of the {PRETRAINED} weights it is {last:.3f} on average, where two "
        "different "
        f"words have {other:.3f}: there is a vector for each token, "
        + (
            "and it still tells which word it is of."
            if last - other > 0.1
            else "and it says little more of the word than of any other."
        )
    )


def _answer_random(found: _Found) -> str:
    own, random = found.moved(PRETRAINED), found.moved(RANDOM)
    figures = (
        "From the embeddings, where the uses of a word differ by position alone, to the highest layer, adjusted "
        f"self-similarity changes by {own:+.3f} with the {PRETRAINED} weights and by {random:+.3f} with random ones "
        "of the same "
        "shape"
    )
    return f"{figures}: " + _way(
        found.moved_more(PRETRAINED, RANDOM),
        "layers that have learnt nothing make vectors depend on their sentence more than these do."
        if random < 0
        else "the layers of neither make the uses of a word differ more.",
        "the layers of neither make the uses of a word differ more."
        if own >= 0
        else "layers do so without any learning, and with it do so more."
        if 2 * random < own
        else "it is learning that makes the layers bring the sentence into the vector of a word.",
        "as much without any learning, so that it is no sign of learning here.",
    )


def _answer_tuned(found: _Found) -> list[str]:
    if TUNED not in found.names:
        return []
    middle, low, high = gap = found.gap(TUNED, PRETRAINED)
    said = _way(gap, "more alike", "less alike", "neither more nor less alike")
    made = "Fine-tuning made" if found.is_before_and_after else f"Than the {PRETRAINED} weights, the {TUNED} ones make"
    return [
        f"{made} the uses of a word {said}: adjusted for how alike any two words are, by {middle:+.3f} "
        f"(95 % interval {low:+.3f} to {high:+.3f}) {found.top}."
    ]


def _answer_rows(found: _Found) -> str:
    rows = found.weights[PRETRAINED]["type_row"]
    share, size = rows["nearest"][-1], found.result["vocabulary"]["size"]
    kind = "most tokens" if share > 0.5 else "some tokens" if share > 0.05 else "hardly any token"
    return (
        f"{found.top.capitalize()} of the {PRETRAINED} weights the row of its own type is the nearest of all "
        f"{size:,} for "
        f"{kind}: {percent(share)}."
    )


def _answer_split(found: _Found) -> str:
    parted = found.weights[PRETRAINED]["split"]
    if not parted["tried"]:
        return f"No word has the {SPLIT_USES} uses from which on groups among them are looked for."
    by_chance = CHANCE * parted["tried"]
    begin = (
        f"The uses of {parted['clear']:,} of {counted(parted['tried'], 'word')} fall into two groups more clearly than "
    )
    if parted["clear"] <= 2 * by_chance + 2:
        return f"{begin}99 of 100 samples of one group, which chance alone does for about {by_chance:.1f}."
    best = [f"“{part['word']}”" for part in parted["words"][:3]]
    return (
        f"{begin}99 of 100 samples of one group (by chance {by_chance:.1f} would); "
        f"most clearly those of {joined(best)}."
    )


def _self_section(found: _Found) -> Section:
    words, sentences = found.words, found.result["sentences"]["used"]
    adjusted, raw = [], []
    for name in found.names:
        uses = found.uses(name)
        base = np.asarray(found.weights[name]["self_similarity"]["baseline"])
        ends = interval(uses - base)
        spread = list(zip(ends["low"], ends["high"], strict=True))
        adjusted.append(charts.Line(name, found.points(ends["mean"]), spread))
        raw += [
            charts.Line(name, found.points(uses.mean(axis=0).tolist())),
            charts.Line(f"{name}, different words", found.points(base.tolist())),
        ]
    says = []
    for name in found.names:
        uses, base = found.uses(name), found.weights[name]["self_similarity"]["baseline"]
        means = uses.mean(axis=0) - base
        lowest = int(means.argmin())
        falls = bool((np.diff(means) < 0).all())
        course = (
            "It falls from every layer to the next."
            if falls
            else "It is lowest there."
            if lowest == len(means) - 1
            else f"It is lowest {_place(lowest)}, at {means[lowest]:.3f}."
        )
        says.append(
            f"{name.capitalize()} weights: two uses of a word have a cosine of {uses[:, 0].mean():.3f} at the type "
            "rows, "
            f"{uses[:, 1].mean():.3f} in the embeddings, which add the position, and {uses[:, -1].mean():.3f} "
            f"{found.top}. "
            f"Two different words have {base[0]:.3f}, {base[1]:.3f} and {base[-1]:.3f}, so that adjusted it goes from "
            f"{means[0]:.3f} to {means[-1]:.3f}. {course}"
        )
    says += [_answer_random(found), *_answer_tuned(found)]
    return Section(
        "The same word in different sentences",
        [
            "Self-similarity is the mean cosine of all pairs of uses of a word. Measured are "
            f"{counted(len(words['names']), 'word')} "
            f"that are used in {CONTEXTS} different sentences or more, in up to {MOST_USES} uses each, "
            f"{sum(words['kept']):,} in all. "
            f"The {counted(sentences, 'sentence')} hold {words['uses']:,} uses of {words['kinds']:,} different "
            "words, and "
            f"{words['enough']:,} of these have enough sentences. A word in several pieces is the mean over them.",
            "In some layers all vectors point in much the same direction. What any two words have in common is "
            "therefore "
            f"measured too, as the mean cosine of uses of up to {RANDOM_WORDS:,} different words, and subtracted: "
            "adjusted, 0 means "
            "that two uses of a word are no more alike than two different words.",
        ],
        says,
        [
            "It says how much the vectors of a word differ, not whether they differ by meaning: position and "
            "neighbours move "
            "them too, also in a network that has learnt nothing. Sentences that repeat each other make every word "
            "look less "
            "dependent on context than it is elsewhere. The bands are 95 % intervals over words."
        ],
        [
            found.draw("Uses of a word, adjusted", adjusted, "above different words"),
            found.draw("Uses of a word, and different words", raw, "mean cosine"),
        ],
        [_layer_table("Self-similarity by layer", found, adjusted, raw)],
    )


def _place(layer: int) -> str:
    return "at the type rows" if layer == 0 else "in the embeddings" if layer == 1 else f"after layer {layer - 1}"


def _layer_table(title: str, found: _Found, adjusted: Sequence[charts.Line], raw: Sequence[charts.Line]) -> Table:
    columns = [*(line.name for line in raw), *(f"{line.name}, adjusted" for line in adjusted)]
    rows: list[list[str | float | None]] = [
        [_place(layer), *(round(line.points[layer][1], 3) for line in (*raw, *adjusted))]
        for layer in range(found.layers + 2)
    ]
    return Table(title, ["Layer", *columns], rows, folded=True)


def _adjusted(found: _Found, figure: str) -> list[charts.Line]:
    """Lines of a mean above its baseline."""
    lines = []
    for line in found.lines(figure):
        base = found.weights[line.name][figure]["baseline"]
        points = [(x, value - low) for (x, value), low in zip(line.points, base, strict=True)]
        spread = [(a - low, b - low) for (a, b), low in zip(line.spread, base, strict=True)]
        lines.append(charts.Line(line.name, points, spread))
    return lines


def _with_baseline(found: _Found, figure: str, other: str) -> list[charts.Line]:
    lines = []
    for line in found.lines(figure):
        base = found.weights[line.name][figure]["baseline"]
        lines += [charts.Line(line.name, line.points), charts.Line(f"{line.name}, {other}", found.points(base))]
    return lines


def _intra_section(found: _Found) -> Section:
    adjusted = _adjusted(found, "intra_sentence")
    raw = _with_baseline(found, "intra_sentence", "strangers")
    says = []
    for line, whole in zip(adjusted, raw[::2], strict=True):
        first, last = line.points[1][1], line.points[-1][1]
        low, high = line.spread[-1]
        course = (
            "the layers draw the words of a sentence together"
            if low > first + SLIGHT
            else "the layers draw the words of a sentence no closer together"
        )
        kind = (
            "more alike than words of different sentences"
            if low > SLIGHT
            else "less alike than words of different sentences"
            if high < -SLIGHT
            else "as alike as words of different sentences"
        )
        says.append(
            f"{line.name.capitalize()} weights: {found.top} the words of a sentence have a mean cosine of "
            f"{whole.points[-1][1]:.3f} to their mean, {last:+.3f} ({low:+.3f} to {high:+.3f}) against strangers: "
            f"{kind}. "
            f"In the embeddings it was {first:+.3f}: {course}."
        )
    return Section(
        "Words of the same sentence",
        [
            "Intra-sentence similarity is the mean cosine of the words of a sentence to the mean of their vectors. "
            "Its baseline "
            "are strangers: as many words drawn from any sentences. (Ethayarajh subtracts the cosine of two random "
            "words, which a mean "
            "exceeds even where sentences mean nothing.)",
        ],
        says,
        [
            "Words of a sentence may grow alike because the sentence has a meaning that all take on, or because "
            "averaging over "
            "neighbours makes everything alike; random weights show how much of the second there is. The bands are "
            "95 % intervals "
            "over sentences."
        ],
        [
            found.draw("Words of a sentence, adjusted", adjusted, "above strangers"),
            found.draw("Words of a sentence, and strangers", raw, "cosine to their mean"),
        ],
        [_layer_table("Intra-sentence similarity by layer", found, adjusted, raw)],
    )


def _explained_section(found: _Found) -> Section:
    adjusted = [
        charts.Line(
            name,
            found.points(values["adjusted_mean"]),
            list(zip(values["adjusted_low"], values["adjusted_high"], strict=True)),
        )
        for name in found.names
        for values in [found.weights[name]["explained_variance"]]
    ]
    raw = _with_baseline(found, "explained_variance", "different words")
    says = []
    for line, whole, base in zip(adjusted, raw[::2], raw[1::2], strict=True):
        low, high = line.spread[-1]
        share = line.points[-1][1]
        lost = 1 - whole.points[-1][1]
        says.append(
            f"{line.name.capitalize()} weights: {found.top} the best single direction holds "
            f"{percent(whole.points[-1][1])} of the squares of a word's vectors, and {percent(base.points[-1][1])} "
            "of as many "
            f"different words: {points(share)} {'more' if share >= 0 else 'fewer'} ({100 * low:.1f} to "
            f"{100 * high:.1f}). A table with "
            f"one vector for each word would lose {'hardly anything' if lost < 0.05 else percent(lost) + ' of them'} "
            "at the least."
        )
    return Section(
        "Could one vector stand for a word?",
        [
            "Maximum explainable variance: of the vectors of a word's uses, the share of the sum of squares that "
            "lies along the one "
            "direction that holds most of it (the square of the first singular value over the sum of all). At 1 a "
            "word has one vector "
            "up to its length, and a table of word vectors would lose nothing.",
            "A few vectors always share a direction: the baseline are as many uses of different words.",
        ],
        says,
        [
            "It is a bound for the best single vector of each word; vectors that a table has in fact are worse than "
            "that."
        ],
        [
            found.draw("Held by one direction, adjusted", adjusted, "above different words"),
            found.draw("Held by one direction", raw, "share of the sum of squares"),
        ],
        [_layer_table("Maximum explainable variance by layer", found, adjusted, raw)],
    )


def _type_section(found: _Found) -> Section:
    size = found.result["vocabulary"]["size"]
    shares = [charts.Line(name, found.points(found.weights[name]["type_row"]["nearest"])) for name in found.names]
    says = []
    for name in found.names:
        rows = found.weights[name]["type_row"]
        half = next((layer for layer, share in enumerate(rows["nearest"]) if share < 0.5), None)
        until = (
            "in every layer for more than half of the tokens"
            if half is None
            else f"for more than half of the tokens only below layer {half - 1}"
            if all(share < 0.5 for share in rows["nearest"][half:])
            else f"in layer {half - 1} for less than half of the tokens, and above it for more again"
        )
        says.append(
            f"{name.capitalize()} weights: {found.top} a token has a cosine of {rows['mean'][-1]:.3f} to the row of "
            "its own type, and "
            f"of {round(rows['other'][-1], 2) + 0.0:.2f} to any row on average. Its own row is the nearest for "
            f"{percent(rows['nearest'][-1])} of the tokens "
            f"{found.top} and for {percent(rows['nearest'][1])} in the embeddings; {until}."
        )
    tokens = found.weights[PRETRAINED]["type_row"]["tokens"]
    return Section(
        "The type row and its tokens",
        [
            f"The embedding matrix has {size:,} rows, one for each type of the vocabulary, and every use of a word "
            "begins with the same "
            f"one. Held against it are the vectors of {counted(tokens, 'token')} (uses of words that are one piece, "
            "drawn at random): their "
            "cosine to their own row, and whether any other row is nearer.",
        ],
        says,
        [
            "Higher layers need not keep to the axes of the matrix: a low cosine does not mean that the word is "
            "forgotten, and a linear "
            "map might find it again."
        ],
        [
            found.draw("Token and its own type row", found.lines("type_row"), "cosine"),
            found.draw("Own type row is the nearest", shares, "share of tokens"),
        ],
    )


def _words_section(found: _Found) -> Section:
    words = found.words
    uses = found.uses(PRETRAINED)[:, -1]
    order = np.argsort(uses, kind="stable").tolist()
    count = min(15, len(order) // 2)
    columns = ["Word", "Uses", "Sentences", *(f"{name}" for name in found.names)]

    def rows(chosen: Sequence[int]) -> list[list[str | float | None]]:
        return [
            [
                words["names"][i],
                int(words["kept"][i]),
                int(words["contexts"][i]),
                *(round(float(found.uses(name)[i, -1]) - found.base(name, -1), 3) for name in found.names),
            ]
            for i in chosen
        ]

    says = [
        f"{found.top.capitalize()} of the {PRETRAINED} weights the uses of a word range from {uses.min():.3f} "
        f"(“{words['names'][order[0]]}”) to {uses.max():.3f} (“{words['names'][order[-1]]}”), with "
        f"{np.median(uses):.3f} in the middle."
    ]
    if TUNED in found.names and len(uses) > 2:
        change = found.uses(TUNED)[:, -1] - found.base(TUNED, -1) - uses + found.base(PRETRAINED, -1)
        low, high = int(change.argmin()), int(change.argmax())
        most = "together most" if change[high] > 0 else "apart least"
        least = "apart most" if change[low] < 0 else "together least"
        begin = "Fine-tuning drew" if found.is_before_and_after else f"Beside the {PRETRAINED} weights, others draw"
        says.append(
            f"{begin} the uses of “{words['names'][high]}” {most} ({change[high]:+.3f}, adjusted), and those of "
            f"“{words['names'][low]}” {least} ({change[low]:+.3f})."
        )
    return Section(
        "Words that depend on context most and least",
        [f"Self-similarity {found.top}, adjusted, of single words; they are ordered by the {PRETRAINED} weights."],
        says,
        [
            "A word of few uses is measured roughly. One that always stands in the same phrase comes out as "
            "independent of context because "
            "its contexts are alike."
        ],
        tables=[
            Table("Most dependent on context", columns, rows(order[:count])),
            Table("Least dependent on context", columns, rows(order[::-1][:count])),
        ]
        if count
        else [],
    )


def _split_section(found: _Found) -> Section:
    figures, tables, says = [], [], []
    for name in found.names:
        parted = found.weights[name]["split"]
        says.append(
            f"{name.capitalize()} weights: {parted['clear']:,} of {counted(parted['tried'], 'word')} of {SPLIT_USES} "
            "uses or more; "
            f"chance alone would give about {CHANCE * parted['tried']:.1f}."
        )
        if name == RANDOM:
            continue
        figures += [
            charts.scatter(
                f"“{part['word']}”, {name}",
                [
                    (f"group {group + 1}", [(x, y, text) for x, y, side, text in part["plane"] if side == group])
                    for group in (0, 1)
                ],
                x="first principal component",
                y="second",
            )
            for part in parted["words"][:2]
        ]
        if parted["words"]:
            tables.append(_split_table(name, parted["words"]))
        tables += [_examples(name, part) for part in parted["words"][:EXAMPLES]]
    own, random = (found.weights[name]["split"] for name in (PRETRAINED, RANDOM))
    if random["clear"] > max(own["clear"], 2 * CHANCE * random["tried"]):
        says.append(
            "With random weights more words fall into groups than with the pretrained ones: there it is the place in "
            "the sentence that "
            "divides them, and having groups is no sign of meaning."
        )
    return Section(
        "Words whose uses fall into two groups",
        [
            f"The vectors of each word {found.top}, less the mean of all words and of one length, are divided in two "
            "by 2-means in their first ten principal "
            "components. The silhouette says how clear the division is. One cloud can be divided too: the figure "
            "that counts is how "
            "far the silhouette is above that of 99 samples of a normal distribution of the same covariance, divided "
            "in the same way. "
            f"Listed are words above all 99, with {SMALLEST} uses or more in the smaller group.",
        ],
        [_answer_split(found), *says],
        [
            "These are groups of uses, not senses of a dictionary: sentences of two topics, two phrases, or two "
            "places in a sentence divide "
            "a word as well as two meanings do. Read the examples. A word of more than two groups shows two of them."
        ],
        figures,
        tables,
    )


def _split_table(name: str, parts: Sequence[Mapping[str, Any]]) -> Table:
    return Table(
        f"Words whose uses fall into two groups most clearly, {name}",
        ["Word", "Uses", "Silhouette", "Of one group", "Deviations above"],
        [
            [
                part["word"],
                f"{part['uses'] - part['second']} + {part['second']}",
                *(round(part[figure], 3) for figure in ("silhouette", "expected")),
                round(part["excess"], 1),
            ]
            for part in parts
        ],
    )


def _examples(name: str, part: Mapping[str, Any]) -> Table:
    sizes = (part["uses"] - part["second"], part["second"])
    columns = [f"Group {number}: {counted(size, 'use')}" for number, size in enumerate(sizes, start=1)]
    rows: list[tuple[str, ...]] = list(zip_longest(*part["examples"], fillvalue=""))
    return Table(f"“{part['word']}”, {name}: the uses nearest to the middle of each group", columns, rows)


def _nearest_section(found: _Found) -> Section:
    says, tables = [], []
    for asked in found.result["nearest"]:
        for name in (name for name in found.names if name in asked):
            near, base = asked[name], found.base(name, -1)
            if not near["found"]:
                says.append(f"{asked['use']}: the corpus has no other use of “{asked['word']}”.")
                break
            says.append(
                f"{asked['use']}: of {counted(near['found'], 'other use')} of “{asked['word']}”, by the {name} "
                "weights the nearest has a cosine "
                f"of {near['uses'][0][0]:.3f}, all have {near['mean']:.3f} on average, and two different words have "
                f"{base:.3f}."
            )
            tables.append(
                Table(
                    f"Nearest to {asked['use']}, {name}",
                    ["Sentence", "Cosine", "Adjusted"],
                    [[text, round(cosine, 3), round(cosine - base, 3)] for cosine, text in near["uses"]],
                )
            )
    return Section(
        "The nearest uses of the same word",
        [
            f"Of each use that was asked for, the uses of the same word in the corpus whose vectors {found.top} are "
            "nearest. Adjusted is the "
            "cosine less that of two different words."
        ],
        says,
        ["What is near shares whatever the vectors hold: meaning, topic, form and place in the sentence."],
        tables=tables,
    )


def _about(record: Mapping[str, Any], found: _Found) -> list[str]:
    settings, sentences = record["settings"], found.result["sentences"]
    about = [
        f"The corpus is {settings['corpus']['file']}: {counted(sentences['read'], 'distinct sentence')}"
        + (
            "."
            if sentences["used"] == sentences["read"]
            else f", of which {sentences['used']:,} drawn at random were run, as many as fit the time."
        ),
        f"Random weights are those of seed {settings['seed']} in the shape of the model, as training from scratch "
        "begins.",
    ]
    if found.words["enough"] > len(found.words["names"]):
        about.append(
            f"Of the words with enough sentences {len(found.words['names']):,} drawn at random were kept, as many as "
            "fit the memory."
        )
    if TUNED in found.names:
        about.append(
            f"The fine-tuned weights are those of {settings['model']}, which began with "
            + (
                f"the {PRETRAINED} weights of {settings['base']}."
                if settings["start"] == "pretrained"
                else f"{'the type embeddings alone' if settings['start'] == 'types' else 'nothing but the shape'} of "
                f"{settings['base']}: the two are not a before and an after."
            )
        )
    about.append("Figures follow Ethayarajh 2019 (arXiv:1909.00512), with baselines of equal size where size matters.")
    return about
