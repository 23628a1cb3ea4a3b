"""The page of the study of masked words: what is said of its figures follows from them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from training import charts
from training.study.contextuality import interval
from training.study.guessing import CONTEXTS, NEAR, NONE, WHOLE, class_names
from training.study.page import Report, Section, Table, about_base, percent, span
from training.wording import counted, joined

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

BEFORE, AFTER = "model", "against"  # the two models, as the command names them
TOPS = (1, 5, 10)  # guesses among which the word must be
FEW = 30  # words of a class, below which its share is not told


def report(record: Mapping[str, Any]) -> Report:
    """Make the page of what study.json holds."""
    found = _Found(record)
    sections = [_guess_section(found), _frequency_section(found), _examples_section(found)]
    sections += [_score_section(found), *_classifier_sections(found)]
    share = found.right(BEFORE, WHOLE, 1)
    value = found.result["perplexity"]
    tiles = [
        (
            "Hidden words guessed at once",
            percent(share["mean"]),
            f"{found.told(BEFORE)}; always “{found.frequent[0]}”: {percent(found.always(1)['mean'])}",
        ),
        *(
            (
                f"Pseudo-perplexity, {found.told(name)}",
                _figure(value[name]["value"]),
                f"95 % {_ends(value[name]['interval'])}",
            )
            for name in found.names
        ),
    ]
    if found.two:
        tiles.insert(1, ("Guessed at once", percent(found.right(AFTER, WHOLE, 1)["mean"]), found.told(AFTER)))
    return Report(
        "What did predicting masked words teach?",
        f"Words hidden in sentences of {found.corpus}, and how probable a model finds the sentences.",
        [
            _answer_guesses(found),
            _answer_context(found),
            *_answer_two(found),
            *_answer_perplexity(found),
            *_answer_classifier(found),
        ],
        tiles,
        sections,
        _about(record, found),
    )


class _Found:
    """What study.json holds of this study, ready to be told."""

    def __init__(self, record: Mapping[str, Any]) -> None:
        self.settings = record["settings"]
        self.result = record["result"]
        self.corpus: str = self.settings["corpus"]["file"]
        self.names = list(self.result["guesses"])
        self.two = len(self.names) > 1
        self.frequent: Sequence[str] = self.result["frequent"]
        self.word_ranks = np.asarray(self.result["frequency"]["ranks"])
        self.classes = np.asarray(self.result["frequency"]["classes"])

    def told(self, name: str) -> str:
        """The name of a model, as short as tells it from the other."""
        short = {key: Path(self.settings[key]).name or self.settings[key] for key in self.names}
        return short[name] if len(set(short.values())) == len(short) else str(self.settings[name])

    def ranks(self, name: str, context: str) -> NDArray[np.int64]:
        """Where each hidden word is among the guesses, 1 the first."""
        return np.asarray(self.result["guesses"][name][context]["ranks"])

    def right(self, name: str, context: str, top: int) -> dict[str, float]:
        """Share of hidden words that are among so many guesses, with its 95 % interval."""
        return _share(self.ranks(name, context) <= top)

    def always(self, top: int) -> dict[str, float]:
        """The same for one who always guesses the most frequent words of the corpus."""
        return _share(self.word_ranks <= top)

    def gap(self, top: int) -> tuple[float, float, float]:
        """Share of the other model less that of the first, over the same words, with its 95 % interval."""
        ranks = [self.ranks(name, WHOLE) <= top for name in (AFTER, BEFORE)]
        found = interval((ranks[0].astype(float) - ranks[1])[:, None])
        return found["mean"][0], found["low"][0], found["high"][0]


def _share(right: NDArray[np.bool_]) -> dict[str, float]:
    """Return a share with Wilson's 95 % interval."""
    count, z = len(right), 1.96
    share = float(right.mean())
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * (share * (1 - share) / count + z * z / (4 * count * count)) ** 0.5
    return {"mean": share, "low": max(0.0, middle - half), "high": min(1.0, middle + half)}


def _figure(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def _ends(ends: Sequence[float]) -> str:
    return f"{_figure(ends[0])} to {_figure(ends[1])}"


def _answer_guesses(found: _Found) -> str:
    share, always = found.right(BEFORE, WHOLE, 1), found.always(1)
    five, five_always = found.right(BEFORE, WHOLE, 5), found.always(5)
    verdict = (
        "it has learnt what words these sentences need"
        if share["low"] > always["high"]
        else "it guesses no better than that"
        if share["high"] >= always["low"]
        else "it guesses worse than that"
    )
    return (
        f"Of {counted(found.result['sentences']['guessed'], 'hidden word')}, {found.told(BEFORE)} names "
        f"{percent(share['mean'])} at once and "
        f"{percent(five['mean'])} among its first five guesses; always saying the most frequent words gives "
        f"{percent(always['mean'])} and {percent(five_always['mean'])}: {verdict}."
    )


def _answer_context(found: _Found) -> str:
    whole, near, none = (found.right(BEFORE, context, 1) for context in CONTEXTS)
    text = f"With only {NEAR} to go by it names {percent(near['mean'])}, and with {NONE} {percent(none['mean'])}"
    if whole["low"] > near["high"]:
        return f"{text}: words further away help it too."
    if near["low"] > none["high"]:
        return f"{text}: what it uses of a sentence is mostly next to the word."
    return f"{text}: it makes little of the context."


def _answer_two(found: _Found) -> list[str]:
    if not found.two:
        return []
    middle, low, high = found.gap(1)
    says = "more" if low > 0 else "fewer" if high < 0 else "neither more nor fewer, as far as so many words can tell"
    return [
        f"{found.told(AFTER)} names {says} of the same words at once than {found.told(BEFORE)}: a difference of "
        f"{100 * middle:+.1f} points "
        f"(95 % interval {100 * low:+.1f} to {100 * high:+.1f})."
    ]


def _answer_perplexity(found: _Found) -> list[str]:
    values = found.result["perplexity"]
    own = values[BEFORE]
    says = [
        f"{found.told(BEFORE)} has a pseudo-perplexity of {_figure(own['value'])} ({_ends(own['interval'])}) on "
        f"{counted(found.result['sentences']['scored'], 'sentence')}: it is as unsure of a token as between so many "
        "equally likely ones, of "
        f"{found.result['vocabulary'][BEFORE]:,} in its vocabulary."
    ]
    if not found.two:
        return says
    other = values[AFTER]
    if "ratio" not in values:
        return [
            *says,
            f"{found.told(AFTER)} has {_figure(other['value'])}, over another vocabulary: the two do not compare.",
        ]
    ratio, (low, high) = values["ratio"]["value"], values["ratio"]["interval"]
    verdict = (
        f"these sentences are less surprising to it, by a factor of {_figure(1 / ratio)} ({_figure(1 / high)} to "
        f"{_figure(1 / low)})"
        if high < 1
        else f"these sentences are more surprising to it, by a factor of {_figure(ratio)} ({_figure(low)} to "
        f"{_figure(high)})"
        if low > 1
        else f"no difference that these sentences can tell (factor {_figure(low)} to {_figure(high)})"
    )
    return [*says, f"{found.told(AFTER)} has {_figure(other['value'])}: {verdict}."]


def _answer_classifier(found: _Found) -> list[str]:
    classified = found.result["classifier"]
    if not classified:
        return []
    if not classified["sizes"]:
        return ["There was no time for classifiers."]
    better: list[str] = []
    worse: list[str] = []
    same: list[str] = []
    for size, gain in zip(classified["sizes"], classified["gain"], strict=True):
        low, high = gain["interval"]
        (better if low > 0 else worse if high < 0 else same).append(
            f"{size:,} rows ({100 * gain['value']:+.1f} points, {100 * low:+.1f} to {100 * high:+.1f})"
        )
    begin = f"As the start of a classifier, {found.told(AFTER)} is"
    says = []
    if better:
        says.append(f"{begin} better than {found.told(BEFORE)} with {joined(better)}.")
    if worse:
        says.append(f"{begin} worse than {found.told(BEFORE)} with {joined(worse)}.")
    if same:
        says.append(
            f"{begin} no different from {found.told(BEFORE)}, as far as these rows can tell, with {joined(same)}."
        )
    return says


def _guess_section(found: _Found) -> Section:
    rows: list[list[str | float | None]] = [
        ["always the most frequent words", *(percent(found.always(top)["mean"]) for top in TOPS), None]
    ]
    for name in found.names:
        for context in CONTEXTS:
            shares = [found.right(name, context, top) for top in TOPS]
            likely = float(np.mean(found.result["guesses"][name][context]["log_probabilities"]))
            rows.append(
                [
                    f"{found.told(name)}, {context}",
                    *(f"{percent(s['mean'])} ({span(s['low'], s['high'])})" for s in shares),
                    f"{np.exp(likely):.2g}",
                ]
            )
    pieces = joined(
        [f"{percent(found.result['one_piece'][name])} of all uses with {found.told(name)}" for name in found.names]
    )
    bars = [
        (f"{found.told(name)}, {_short(context)}", 100 * found.right(name, context, 1)["mean"])
        for name in found.names
        for context in CONTEXTS
    ]
    return Section(
        "Guessing hidden words",
        [
            f"In each of {counted(found.result['sentences']['guessed'], 'sentence')}, drawn at random, one word is "
            "hidden behind a mask token, "
            "and the model ranks all pieces of its vocabulary for the place. Words are those with a letter that are "
            "one piece of the "
            f"vocabulary, {pieces}. The same is done with all but {NEAR} hidden too, and with {NONE} left.",
            "The baseline looks at no sentence: it always says the most frequent words of this corpus, "
            f"{joined([f'“{word}”' for word in found.frequent[:5]])} first, which it has been told.",
        ],
        [_answer_guesses(found), _answer_context(found), *_answer_two(found)],
        [
            "A guess that is not the word may fit as well: the share guessed right is not the share that makes "
            "sense. Where a model was pretrained "
            "on this very corpus, it has seen the answers; hold it against sentences that it has not learnt from."
        ],
        [
            charts.bars(
                "Hidden words named at once",
                [*bars, ("most frequent word", 100 * found.always(1)["mean"])],
                x="percent of hidden words",
            )
        ],
        [
            Table(
                "Hidden words among the first guesses, with 95 % intervals",
                ["Guesser", "First", "First 5", "First 10", "Probability"],
                rows,
            )
        ],
    )


def _short(context: str) -> str:
    return {WHOLE: "whole", NEAR: "2 words each side", NONE: "no context"}[context]


def _frequency_section(found: _Found) -> Section:
    kinds = class_names()
    known = [kind for kind in kinds if (found.classes == kind).sum()]
    rows: list[list[str | float | None]] = []
    for kind in known:
        inside = found.classes == kind
        cells: list[str | float | None] = [kind, int(inside.sum())]
        for name in found.names:
            for context in (WHOLE, NEAR):
                share = _share(found.ranks(name, context)[inside] <= 1)
                cells.append(f"{percent(share['mean'])} ({span(share['low'], share['high'])})")
        rows.append(cells)
    enough = [kind for kind in known if (found.classes == kind).sum() >= FEW]
    says = []
    for name in found.names:
        shares = [_share(found.ranks(name, WHOLE)[found.classes == kind] <= 1) for kind in enough]
        if len(shares) > 1:
            first, last = shares[0], shares[-1]
            verdict = (
                "frequent words are easier"
                if first["low"] > last["high"]
                else "rare words are easier"
                if last["low"] > first["high"]
                else "frequency makes no difference that so many words can tell"
            )
            says.append(
                f"{found.told(name)} names {percent(first['mean'])} of the words of {enough[0]} at once, and "
                f"{percent(last['mean'])} of those "
                f"{enough[-1] if enough[-1].startswith('beyond') else 'of ' + enough[-1]}: {verdict}."
            )
    if not says:
        says.append(f"Fewer than two classes have {FEW} hidden words: there is nothing to compare.")
    columns = [
        "Frequency in the corpus",
        "Hidden words",
        *(f"{found.told(name)}, {_short(context)}" for name in found.names for context in (WHOLE, NEAR)),
    ]
    series = [
        charts.Line(
            found.told(name),
            [(i + 1.0, share["mean"]) for i, share in enumerate(shares)],
            [(share["low"], share["high"]) for share in shares],
        )
        for name in found.names
        for shares in [[_share(found.ranks(name, WHOLE)[found.classes == kind] <= 1) for kind in enough]]
    ]
    figures = (
        [
            charts.lines(
                "Named at once, by frequency",
                series,
                x="class: 1 the most frequent words",
                y="share of words",
                x_ticks=[float(i + 1) for i in range(len(enough))],
            )
        ]
        if len(enough) > 1
        else []
    )
    return Section(
        "Frequent and rare words",
        [
            "Words are ranked by how often this corpus uses them; each class has the share that is named at once, "
            "with its 95 % interval."
        ],
        says,
        [
            f"The figure leaves out classes of fewer than {FEW} words. Rare words that are one piece of the "
            "vocabulary are rare here, not in what the model was pretrained on."
        ],
        figures,
        [Table("Hidden words named at once, by frequency", columns, rows)],
    )


def _examples_section(found: _Found) -> Section:
    def guesses(values: Sequence[Any]) -> str:
        return ", ".join(f"{token} {100 * probability:.0f} %" for token, probability in values)

    tables = [
        Table(
            "Words of the corpus",
            ["Sentence", *(found.told(name) for name in found.names)],
            [
                [example["sentence"], *(guesses(example[name]) for name in found.names)]
                for example in found.result["examples"]
            ],
        )
    ]
    asked = [
        [
            text["text"] if len(text[BEFORE]) == 1 else f"{text['text']} (blank {blank + 1})",
            *(guesses(text[name][blank]) for name in found.names),
        ]
        for text in found.result["asked"]
        for blank in range(len(text[BEFORE]))
    ]
    if asked:
        tables.insert(0, Table("What was asked for", ["Text", *(found.told(name) for name in found.names)], asked))
    first = [
        [example[name][0][0].casefold() == example["word"].casefold() for example in found.result["examples"]]
        for name in found.names
    ]
    says = [
        f"{found.told(name)} has the word itself first in {sum(hits)} of these {len(hits)} sentences."
        for name, hits in zip(found.names, first, strict=True)
    ]
    for text in found.result["asked"]:
        for blank in range(len(text[BEFORE])):
            best = [
                f"“{text[name][blank][0][0]}” ({percent(text[name][blank][0][1], 0)}) by {found.told(name)}"
                for name in found.names
            ]
            says.append(f"{text['text']}: {joined(best)}.")
    return Section(
        "What it says in the place of a word",
        [
            "The first guesses for hidden words, the most probable first; of the corpus, words beyond the ten most "
            "frequent, spread over the drawn sentences."
        ],
        says,
        ["These are examples, not a measurement. A piece that goes on a word begins with ##."],
        tables=tables,
    )


def _score_section(found: _Found) -> Section:
    tables = []
    values = found.result["perplexity"]
    for name in found.names:
        for kind, title in (("most", "Most expected sentences"), ("least", "Least expected sentences")):
            rows = [[text, _figure(value)] for text, value in found.result["expected"][name][kind]]
            if rows:
                tables.append(Table(f"{title}, {found.told(name)}", ["Sentence", "Pseudo-perplexity"], rows))
    says = _answer_perplexity(found)
    least, most = (found.result["expected"][BEFORE][kind] for kind in ("least", "most"))
    if least and most:
        says.append(
            f"The most expected sentence for {found.told(BEFORE)} is “{most[0][0]}” ({_figure(most[0][1])}), the "
            "least expected one "
            f"“{least[0][0]}” ({_figure(least[0][1])})."
        )
    return Section(
        "How probable are the sentences?",
        [
            f"Each of {values[BEFORE]['tokens']:,} tokens is hidden in turn, and the model says how probable it is "
            "in its place, given all others. The "
            "pseudo-perplexity of a sentence is one over the geometric mean of these probabilities (Salazar et al. "
            "2020, arXiv:1910.14659): 1 where every "
            "token is certain. scores.csv beside this page has every sentence.",
        ],
        says,
        [
            "It is no probability of the sentence, and long words in several pieces look too easy: their pieces give "
            "each other away. Models of "
            "different vocabularies do not compare. Intervals are over sentences.",
            "What is least expected is not wrong: typing errors, names, and other languages come out there, as does "
            "whatever the model was never taught.",
        ],
        tables=tables,
    )


def _classifier_sections(found: _Found) -> list[Section]:
    classified = found.result["classifier"]
    if not classified:
        return []
    sizes = classified["sizes"]
    lines = [
        charts.Line(
            found.told(name),
            [(float(size), one["mean"]) for size, one in zip(sizes, classified["accuracy"][name], strict=True)],
            [tuple(one["interval"]) for one in classified["accuracy"][name]],
        )
        for name in found.names
    ]
    gain = charts.Line(
        "difference",
        [(float(size), 100 * one["value"]) for size, one in zip(sizes, classified["gain"], strict=True)],
        [(100 * one["interval"][0], 100 * one["interval"][1]) for one in classified["gain"]],
    )
    figures = (
        [
            charts.lines(
                "Accuracy of the classifier", lines, x="rows learnt from", y="accuracy", x_ticks=sizes, by_factors=True
            ),
            charts.lines(
                f"{found.told(AFTER)} less {found.told(BEFORE)}",
                [gain],
                x="rows learnt from",
                y="points of accuracy",
                x_ticks=sizes,
                by_factors=True,
            ),
        ]
        if len(sizes) > 1
        else []
    )
    rows: list[list[str | float | None]] = []
    for j, size in enumerate(sizes):
        ours = [classified["accuracy"][name][j] for name in found.names]
        change = classified["gain"][j]
        rows.append(
            [
                f"{size:,}",
                *(f"{percent(one['mean'])} ({span(*one['interval'])})" for one in ours),
                f"{100 * change['value']:+.1f} ({100 * change['interval'][0]:+.1f} to "
                f"{100 * change['interval'][1]:+.1f})",
            ]
        )
    left = (
        f" There was no time for {joined([f'{size:,}' for size in classified['left_out']])} rows."
        if classified["left_out"]
        else ""
    )
    each = [f"{classified['steps'][str(size)]:,} with {size:,}" for size in classified["sizes"]]
    steps = f": {joined(each)}" if each else ""
    return [
        Section(
            "Does it help the classifier?",
            [
                f"Both models are fine-tuned on the same rows of {found.settings['labelled']['file']} in the same "
                f"way, {len(classified['seeds'])} times for each number of "
                f"rows with other rows and another order, and measured on the {classified['test_rows']:,} rows of "
                f"{found.settings['test']['file']} "
                f"({classified['labels']} labels). With the same number of rows both get the same steps{steps}."
                f"{left}",
            ],
            _answer_classifier(found),
            [
                "Bands and intervals are those of drawing test rows and seeds again, the same for both models; with "
                f"{len(classified['seeds'])} seeds the "
                "part of the seeds comes out somewhat small. One learning rate is used for both: another one may "
                "suit either better.",
                "Where the test sentences, without their labels, were among the text that a model was pretrained on, "
                "it had a look at them that it will "
                "not have at new sentences.",
            ],
            figures,
            [
                Table(
                    "Accuracy, and the difference in points, with 95 % intervals",
                    ["Rows", *(found.told(name) for name in found.names), "Difference"],
                    rows,
                )
            ]
            if rows
            else [],
        )
    ]


def _about(record: Mapping[str, Any], found: _Found) -> list[str]:
    settings, sentences = record["settings"], found.result["sentences"]
    about = [
        f"The corpus is {settings['corpus']['file']}: {counted(sentences['read'], 'distinct sentence')}. Drawn at "
        f"random (seed {settings['seed']}), "
        f"{sentences['scored']:,} were scored and {sentences['guessed']:,} had a word hidden"
        + ("." if sentences["scored"] == sentences["read"] else ", as many as fit the time.")
    ]
    if sentences["counted"] < sentences["read"]:
        about.append(f"How frequent a word is was counted in {sentences['counted']:,} of them, drawn at random.")
    if found.two and not found.result["same_vocabulary"]:
        about.append(
            "The two models have different vocabularies: guesses compare over words that are one piece in both, "
            "perplexities do not."
        )
    about += [text for name in found.names for text in about_base(settings[name])]
    return about
