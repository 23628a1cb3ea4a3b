"""The page of the study of starting points."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from training.charts import Line, lines
from training.study.page import Report, Section, Table, about_base, percent, points, span
from training.study.starts import STRENGTHS
from training.wording import counted, joined

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

TUNED = ("pretrained", "types", "random")  # starts that learn as a whole; their names are those of `--init`
STARTS = (*TUNED, "frozen")
NAMES = {
    "pretrained": "pretrained",
    "types": "type embeddings only",
    "random": "random",
    "frozen": "pretrained, frozen",
}

FROZEN = {  # by `--freeze`
    None: "pretrained word embeddings do not learn",
    "embeddings": "word embeddings do not learn, from no start",
    "none": "word embeddings learn from every start",
}


def report(record: Mapping[str, Any]) -> Report:
    """Return the page of a study.json."""
    found = record["result"]
    sizes, curves = found["sizes"], found["curves"]
    full = sizes[-1]
    last = {start: curves[start][-1] for start in STARTS}
    worth = found["worth"]["of_others"]["random"]
    of_all = f"all {full:,} rows" if full == found["rows"] else f"{full:,} of {found['rows']:,} rows"
    answer = [_above(found["gaps"]["random"]), _told_worth(worth, sizes), _types(last), _head(curves)]
    tiles = [
        ("Pretrained", percent(last["pretrained"]["accuracy"]), f"{span(*last['pretrained']['interval'])}, {of_all}"),
        ("Random", percent(last["random"]["accuracy"]), f"{span(*last['random']['interval'])}, {of_all}"),
        ("Frozen, fitted head", percent(last["frozen"]["accuracy"]), f"{span(*last['frozen']['interval'])}, {of_all}"),
        ("Pretraining is worth", *_worth_tile(worth, sizes)),
    ]
    return Report(
        title=f"Does the starting point matter? {record['settings']['data']}",
        question="The same rows, the same number of steps, and four places to start from: how right is each, and how "
        "many labelled sentences does a good start save?",
        answer=answer,
        tiles=tiles,
        sections=[_curves_part(found), _worth_part(found), _fairness_part(found)],
        about=[*about_base(found["base"]), *_about(record)],
    )


def _above(gaps: Sequence[Mapping[str, Any]]) -> str:
    """Say where the pretrained start is above the random one, and by how much."""
    clear = [gap for gap in gaps if gap["interval"][0] > 0]
    above = [gap for gap in gaps if gap["gap"] > 0]
    behind = [gap for gap in gaps if gap["interval"][1] < 0]
    first, last = (f"{_gap(gap)} with {gap['rows']:,}" for gap in (gaps[0], gaps[-1]))
    if len(clear) == len(gaps):
        return f"At every size the pretrained start is above the random one: by {first} sentences, by {last}."
    if len(above) == len(gaps) and clear:
        return (
            f"At every size the pretrained start is above the random one, but by more than chance only with "
            f"{_sizes(clear)} sentences: by {first}, by {last}."
        )
    if len(behind) == len(gaps):
        return f"At every size the pretrained start is below the random one: by {first} sentences, by {last}."
    told = [
        f"{side} it by more than chance with {_sizes(some)}"
        for side, some in (("above", clear), ("below", behind))
        if some
    ]
    ends = " and ".join(f"{100 * gap['gap']:+.1f} points with {gap['rows']:,}" for gap in (gaps[0], gaps[-1]))
    if not told:
        return f"The pretrained start is neither above nor below the random one by more than chance: {ends} sentences."
    return f"Beside the random start, the pretrained one is {' and '.join(told)} sentences; at the ends: {ends}."


def _sizes(gaps: Sequence[Mapping[str, Any]]) -> str:
    return joined([f"{gap['rows']:,}" for gap in gaps])


def _gap(gap: Mapping[str, Any]) -> str:
    low, high = (f"{100 * bound:+.1f}" for bound in gap["interval"])
    return f"{points(gap['gap'])} ({low} to {high})"


def _told_worth(worth: Mapping[str, Any], sizes: Sequence[int]) -> str:
    full, needed = worth["rows"], worth["needed"]
    reached = f"The accuracy that the random start has with {full:,} sentences, {percent(worth['accuracy'])},"
    if needed is None:
        return (
            f"{reached} is one that the pretrained start does not reach with as many: pretraining is worth no labelled "
            "sentences here."
        )
    if needed <= sizes[0]:
        return (
            f"{reached} the pretrained start has with no more than {sizes[0]:,}, the fewest that were tried: "
            f"pretraining is worth at least {full - sizes[0]:,} labelled sentences here."
        )
    saved = full - needed
    if saved < 0.1 * full:
        return (
            f"{reached} the pretrained start has with {needed:,.0f} ({_needed_span(worth, sizes)}): pretraining is "
            "worth few labelled sentences here, if any."
        )
    return (
        f"{reached} the pretrained start has with {needed:,.0f} (95 % interval {_needed_span(worth, sizes)}): "
        f"pretraining is worth about {saved:,.0f} labelled sentences here."
    )


def _needed_span(worth: Mapping[str, Any], sizes: Sequence[int]) -> str:
    low, high = worth["interval"]
    least = f"{sizes[0]:,} or fewer" if low is not None and low <= sizes[0] else _rows_needed(low, sizes)
    most = f"{sizes[0]:,} or fewer" if high is not None and high <= sizes[0] else _rows_needed(high, sizes)
    return least if least == most else f"{least} to {most}"


def _with_span(worth: Mapping[str, Any], sizes: Sequence[int]) -> str:
    needed, interval = _rows_needed(worth["needed"], sizes), _needed_span(worth, sizes)
    return needed if needed == interval else f"{needed} ({interval})"


def _rows_needed(needed: float | None, sizes: Sequence[int]) -> str:
    return f"more than {sizes[-1]:,}" if needed is None else f"{needed:,.0f}"


def _worth_tile(worth: Mapping[str, Any], sizes: Sequence[int]) -> tuple[str, str]:
    full, needed = worth["rows"], worth["needed"]
    note = f"labelled sentences: {percent(worth['accuracy'])} is reached with"
    if needed is None:
        return "0", f"labelled sentences: {percent(worth['accuracy'])} is not reached"
    least = needed <= sizes[0]
    figure = f"{'at least ' if least else ''}{full - needed:,.0f}"
    return figure, f"{note} {_needed_span(worth, sizes)} in place of {full:,}"


def _types(last: Mapping[str, Mapping[str, Any]]) -> str:
    """Say what part of the gain the word embeddings alone bring."""
    whole = last["pretrained"]["accuracy"] - last["random"]["accuracy"]
    part = last["types"]["accuracy"] - last["random"]["accuracy"]
    rows = f"with {last['types']['rows']:,} sentences"
    reached = f"With the pretrained rows of the word types and all else random, accuracy {rows} is"
    reached += f" {percent(last['types']['accuracy'])}"
    if whole <= 0:
        return f"{reached}, of the wholly random start {percent(last['random']['accuracy'])}."
    if part <= 0:
        return f"{reached}: the word types alone bring none of the gain of {points(whole)}; it comes from the layers."
    if part >= whole:
        return f"{reached}: as much as the whole pretrained model, {percent(last['pretrained']['accuracy'])}, or more."
    return (
        f"{reached}: the word types alone bring {100 * part / whole:.0f} % of the gain of {points(whole)}; the rest "
        "comes from the layers, which make of a type's one row a vector for each token."
    )


def _head(curves: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """Compare the frozen encoder with the one that learns."""
    pairs = list(zip(curves["frozen"], curves["pretrained"], strict=True))
    ahead = [frozen["rows"] for frozen, tuned in pairs if frozen["accuracy"] > tuned["accuracy"]]
    frozen, tuned = pairs[-1]
    reached = (
        f"With every weight frozen and a logistic regression on the mean of the token vectors, accuracy with "
        f"{frozen['rows']:,} sentences is {percent(frozen['accuracy'])}"
    )
    difference = tuned["accuracy"] - frozen["accuracy"]
    gained = f"fine-tuning {'adds' if difference >= 0 else 'loses'} {points(difference)}"
    behind = [frozen["rows"] for frozen, tuned in pairs if frozen["accuracy"] < tuned["accuracy"]]
    if len(behind) == len(pairs):
        return f"{reached}; {gained}, and is ahead at every size."
    if not ahead and not behind:
        return f"{reached}, and that of the fine-tuned one is the same at every size."
    if not ahead:
        return f"{reached}; {gained}. It is ahead with {joined([f'{rows:,}' for rows in behind])}."
    if len(ahead) == len(pairs):
        return f"{reached}; {gained}: the frozen vectors are ahead at every size."
    return f"{reached}; {gained}. The frozen vectors are ahead with {joined([f'{rows:,}' for rows in ahead])}."


def _curves_part(found: Mapping[str, Any]) -> Section:
    sizes, curves = found["sizes"], found["curves"]
    drawn = [
        Line(
            NAMES[start],
            [(point["rows"], 100 * point["accuracy"]) for point in curves[start]],
            [(100 * min(point["by_seed"]), 100 * max(point["by_seed"])) for point in curves[start]],
        )
        for start in STARTS
    ]
    rows = [
        [
            f"{size:,}",
            *[
                f"{percent(curves[start][j]['accuracy'])} ({_deviation(curves[start][j]['by_seed'])})"
                for start in STARTS
            ],
            found["steps"][str(size)],
        ]
        for j, size in enumerate(sizes)
    ]
    unclear = [
        f"{NAMES[start]} at {gap['rows']:,}"
        for start, gaps in found["gaps"].items()
        for gap in gaps
        if gap["interval"][0] <= 0 <= gap["interval"][1]
    ]
    return Section(
        "Accuracy by number of labelled sentences",
        [
            f"Each point is the mean of {counted(len(found['seeds']), 'run')} with different rows, random numbers and "
            f"order, each judged on the same {found['test_rows']:,} test rows; the band spans the lowest and the "
            f"highest run. Always giving the most frequent label would be right for {percent(found['majority'])}.",
        ],
        [
            *_shape(curves, sizes),
            "No difference from the pretrained start is within chance."
            if not unclear
            else "Within chance of the pretrained start (the 95 % interval of the difference holds 0): "
            f"{joined(unclear)}.",
        ],
        [
            "Rows that were drawn by chance, and few seeds: the intervals come from drawing test rows and seeds again "
            "(a bootstrap), and with few seeds say too little of the chance in training.",
            "Every start had the same number of steps. A random start given many more could end higher; that would "
            "be a larger budget, not a fairer one.",
        ],
        [
            lines(
                "Accuracy by rows",
                drawn,
                x="labelled sentences",
                y="accuracy, %",
                x_ticks=sizes,
                by_factors=True,
            ),
        ],
        [Table("Accuracy, and its standard deviation over seeds", ["Rows", *NAMES.values(), "Steps"], rows)],
    )


def _deviation(values: Sequence[float]) -> str:
    return f"±{100 * float(np.std(values, ddof=1)):.1f}" if len(values) > 1 else "one run"


def _shape(curves: Mapping[str, Sequence[Mapping[str, Any]]], sizes: Sequence[int]) -> list[str]:
    """Say how far apart the starts are where there is little data and where there is much."""
    told = []
    for j in (0, len(sizes) - 1):
        order = sorted(STARTS, key=lambda start: -curves[start][j]["accuracy"])
        listed = [f"{NAMES[start]} {percent(curves[start][j]['accuracy'])}" for start in order]
        told.append(f"With {sizes[j]:,} sentences, from best to worst: {joined(listed)}.")
    return told


def _worth_part(found: Mapping[str, Any]) -> Section:
    sizes = found["sizes"]
    others = ("random", "types", "frozen")
    shown = {start: found["worth"]["of_pretrained"][start] for start in others}
    rows = [
        [
            f"{size:,}",
            percent(shown["random"][j]["accuracy"]),
            *[_with_span(shown[start][j], sizes) for start in others],
        ]
        for j, size in enumerate(sizes)
    ]
    gaps = [
        Line(
            NAMES[start],
            [(gap["rows"], 100 * gap["gap"]) for gap in found["gaps"][start]],
            [(100 * gap["interval"][0], 100 * gap["interval"][1]) for gap in found["gaps"][start]],
            style=1 + STARTS.index(start),
        )
        for start in others
    ]
    at_most = [one for one in shown["random"] if one["needed"] is not None]
    says = [
        _told_worth(found["worth"]["of_others"][start], sizes).replace("random start", f"{NAMES[start]} start", 1)
        for start in others
        if start != "frozen"
    ]
    if at_most:
        best = at_most[-1]
        takes = (
            f"no more than {sizes[0]:,} from the random one, the fewest that were tried."
            if best["needed"] <= sizes[0]
            else f"{best['needed']:,.0f} from the random one ({_needed_span(best, sizes)}): "
            f"{best['needed'] / best['rows']:.3g} times as many."
        )
        says.append(
            f"The other way round: what {best['rows']:,} sentences make of the pretrained start, "
            f"{percent(best['accuracy'])}, takes {takes}"
        )
    else:
        says.append(
            f"What even {sizes[0]:,} sentences make of the pretrained start, "
            f"{percent(shown['random'][0]['accuracy'])}, the random one does not reach with {sizes[-1]:,}."
        )
    return Section(
        "What pretraining is worth in labelled sentences",
        [
            "The curves read sideways: how many rows does each start need for the same accuracy? Between two sizes the "
            "accuracy is taken to rise in a straight line over the logarithm of the rows; nothing is said beyond the "
            "largest size but that it would take more. In brackets, 95 % intervals.",
        ],
        says,
        [
            "Sentences that are labelled by other rules, or rarer labels, may be worth more or less: the exchange "
            "rate is one of this data set, this base model and this accuracy.",
        ],
        [
            lines(
                "Gap to the pretrained start",
                gaps,
                x="labelled sentences",
                y="points of accuracy",
                x_ticks=sizes,
                by_factors=True,
            )
        ],
        [
            Table(
                "Rows needed for the accuracy of the pretrained start",
                ["Rows, pretrained", "Accuracy", *[f"Rows, {NAMES[start]}" for start in others]],
                rows,
            )
        ],
    )


def _fairness_part(found: Mapping[str, Any]) -> Section:
    rates = found["learning_rates"]
    tried = sorted({rate for start in TUNED for rate in rates[start]["tried"]}, key=float)
    rows = [
        [
            NAMES[start],
            *[
                percent(rates[start]["tried"][rate]["accuracy"]) if rate in rates[start]["tried"] else None
                for rate in tried
            ],
            f"{rates[start]['chosen']:g}",
        ]
        for start in TUNED
    ]
    edges = [
        NAMES[start]
        for start in TUNED
        if f"{rates[start]['chosen']:g}"
        in (min(rates[start]["tried"], key=float), max(rates[start]["tried"], key=float))
    ]
    higher = [NAMES[start] for start in TUNED if rates[start]["best"] > rates[start]["chosen"]]
    chosen = [f"{rates[start]['chosen']:g} for the {NAMES[start]} start" for start in TUNED]
    return Section(
        "A fair chance for each start",
        [
            f"The best learning rate of one start is not that of another. Each was tried with several on "
            f"{rates['random']['rows']:,} rows; for all sizes the lowest was taken that was within one standard error "
            f"of the best on {rates['random']['dev_rows']:,} others: a rate a little too high for short runs can end "
            "long ones at nothing. The frozen start has a logistic regression whose penalty cross-validation chose "
            f"for every run among {joined([f'{c:g}' for c in STRENGTHS])} (C).",
            "Runs are those of `bertrand train` with --consistency 0 --soft-labels 0 --final-epochs 0 "
            f"--detokenize none and batches of {found['batch_size']}: the lower layers learn more slowly (by 0.9 a "
            "layer), and "
            f"{FROZEN[found['freeze']]}.",
        ],
        [
            f"Chosen were {joined(chosen)}.",
            *([f"A higher one was best, by less than chance, for the starts: {joined(higher)}."] if higher else []),
            *_repeated(found),
            *(
                [f"At the edge of what was tried, so that one beyond it could be better: {joined(edges)}."]
                if edges
                else []
            ),
        ],
        ["The rate was chosen at one size with one seed; at others another one might do slightly better."],
        [],
        [Table("Development accuracy by learning rate", ["Start", *tried, "Chosen"], rows)],
    )


def _repeated(found: Mapping[str, Any]) -> list[str]:
    again = found["repeated"]
    if not again:
        return []
    listed = [
        f"{NAMES[one['start']]} with {one['rows']:,} rows and seed {one['seed']} (at last {one['rate']:.3g})"
        for one in again
    ]
    runs = len(TUNED) * len(found["sizes"]) * len(found["seeds"])
    return [
        f"Of {runs} runs {len(again)} had learnt nothing at that rate (of the very rows they had learnt from no more "
        f"were right than the most frequent label has) and began again with a third of it: {joined(listed)}."
    ]


def _about(record: Mapping[str, Any]) -> list[str]:
    found = record["result"]
    told = [
        f"{found['rows']:,} rows of {found['labels']} labels to learn from; smaller sizes are beginnings of the same "
        "random order, with every label in them, and every start has the same rows, so that differences are paired.",
    ]
    if found["sizes"][-1] < found["rows"]:
        told.append(
            f"In the time there was, {found['sizes'][-1]:,} rows are the largest size; all {found['rows']:,} need more "
            "minutes."
        )
    if len(found["seeds"]) < found["seeds_asked"]:
        told.append(f"Of {found['seeds_asked']} seeds the time allowed {len(found['seeds'])}.")
    if found["test_rows_seen"]:
        told.append(
            f"{counted(found['test_rows_seen'], 'test row')} also stand among the rows to learn from, but for case and "
            "punctuation: accuracies flatter all starts by that much at most."
        )
    return told
