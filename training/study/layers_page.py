"""The page of the study of layers: what study.json holds, in words and figures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from training import charts
from training.study import page
from training.study.ends import about, about_shared, name_of
from training.study.parts import EMBEDDINGS, HEAD, MODULES, UNMOVED, layer_name
from training.wording import joined

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def report(record: Mapping[str, Any]) -> page.Report:
    """Return the page of what study.json holds."""
    found = _Found(record)
    most, least = found.most_moved, found.least_moved
    untouched, start = found.back("nothing"), found.back("everything")
    worst = max(found.singles, key=lambda one: -one["change"]["value"])
    given = record["result"]["rows"]["given"]
    return page.Report(
        title=f"Where fine-tuning changed {name_of(record['settings']['model'])}",
        question="Which layers did fine-tuning change, and which of these changes does the model need?",
        answer=[found.moved(), found.halves(), found.likeness()],
        tiles=[
            ("Accuracy, fine-tuned", page.percent(untouched["accuracy"]), f"of {found.rows:,} rows"),
            ("Accuracy of the start", page.percent(start["accuracy"]), "everything rolled back"),
            ("Moved most", most[0], f"by {page.percent(most[1])}; least: {least[0]}, {page.percent(least[1])}"),
            ("Costs most to undo", worst["name"], f"{_signed(worst['change']['value'])} points of accuracy, alone"),
        ],
        sections=[_drift_section(found), *_types_sections(found), _alike_section(found), _rollback_section(found)],
        about=[
            *about(found.model),
            *page.about_base(found.model["base"]),
            *about_shared(record["result"]["rows"]),
            "All is measured in evaluation mode: no dropout. The loss is the cross-entropy of the labels, without what "
            "training may have added to it.",
            f"So as to keep the time, {found.rows:,} of the {given:,} rows are measured on; with more --minutes, more."
            if found.rows < given
            else f"All {given:,} rows are measured on.",
        ],
    )


class _Found:
    """What study.json holds, as the page asks for it."""

    def __init__(self, record: Mapping[str, Any]) -> None:
        self.result = record["result"]
        self.model = self.result["model"]
        self.rows: int = self.result["rows"]["measured"]
        self.layers = [layer_name(number) for number in range(1, self.model["layers"] + 1)]
        self.drifts = {(one["block"], one["module"]): one["drift"] for one in self.result["drift"]}
        self.backs = {one["name"]: one for one in self.result["rollbacks"]}
        self.moves: list[tuple[str, float]] = [(name, self.drifts[name, "all"]) for name in self.layers]
        self.most_moved = max(self.moves, key=lambda pair: pair[1])
        self.least_moved = min(self.moves, key=lambda pair: pair[1])
        self.singles = [self.backs[name] for name in self.layers]

    def back(self, name: str) -> dict[str, Any]:
        """Return a roll-back by its name."""
        found: dict[str, Any] = self.backs[name]
        return found

    def lowest(self, k: int) -> dict[str, Any]:
        """Return the roll-back of the lowest k layers."""
        return self.back("nothing" if k == 0 else layer_name(1) if k == 1 else f"lowest {k}")

    def highest(self, k: int) -> dict[str, Any]:
        """Return the roll-back of the highest k layers."""
        top = len(self.layers)
        return self.lowest(k) if k in (0, top) else self.back(layer_name(top) if k == 1 else f"highest {k}")

    @property
    def kept(self) -> bool:
        """Whether the embedding tables are as they were."""
        return bool(self.drifts[EMBEDDINGS, "all"] < UNMOVED)

    @property
    def frozen(self) -> bool:
        """Whether every layer is as it was."""
        return self.most_moved[1] < UNMOVED

    def moved(self) -> str:
        """Say which layers moved."""
        if self.frozen:
            return f"Fine-tuning changed no layer of {len(self.layers)}: all of its work is in the head."
        (most, far), (least, near) = self.most_moved, self.least_moved
        if len(self.layers) == 1:
            return f"Fine-tuning moved the weights of its one layer by {page.percent(far)} of their length."
        order = 0 if near > 0.9 * far else rank_order([value for _, value in self.moves])
        whole = {
            1: "on the whole, the higher a layer the further it moved",
            -1: "on the whole, the lower a layer the further it moved",
            0: "all moved about as far" if near > 0.9 * far else "there is no order in it from the bottom up",
        }[order]
        return (
            f"Fine-tuning moved the weights of {most} most, by {page.percent(far)} of their length, and those of "
            f"{least} least, by {page.percent(near)}: {whole}."
        )

    def halves(self) -> str:
        """Say what the lower and the upper half of the layers cost when they are undone."""
        half = len(self.layers) // 2
        if not half:
            return f"Rolled back to its start without retraining, the one layer {cost(self.lowest(1))}."
        low, high = self.lowest(half), self.highest(half)
        which = "layer" if half == 1 else f"{half} layers"
        text = (
            f"Rolled back to the start without retraining, the lowest {which} {cost(low, many=half > 1)}, and the "
            f"highest {which} {cost(high, many=half > 1)}."
        )
        difference = low["change"]["value"] - high["change"]["value"]
        if low["change"]["low"] > high["change"]["high"]:
            return f"{text} What fine-tuning did for these labels is mostly in the upper half."
        if low["change"]["high"] < high["change"]["low"]:
            return f"{text} What fine-tuning did for these labels is mostly in the lower half."
        if abs(difference) < 0.005:
            return f"{text} Neither half matters more."
        return f"{text} The two intervals overlap: which half matters more, these rows do not say."

    def diagonal(self, kind: str) -> list[float | None]:
        """Return the likeness of each layer to itself before, from the embeddings up."""
        grid = self.result["alike"][kind]
        return [line[i] for i, line in enumerate(grid["grid"])] if grid else []

    def likeness(self) -> str:
        """Say how far the representations changed."""
        values = [(i, value) for i, value in enumerate(self.diagonal("tokens")) if value is not None and i]
        if not values:
            return "There are too few words to compare representations."
        (first, low), (last, high) = values[0], values[-1]
        lowest = min(value for _, value in values)
        if lowest > 0.99:
            return (
                "The vectors of words hardly changed: at every layer their likeness (CKA) to those before is "
                f"{lowest:.3f} or more."
            )
        trend = "less and less" if low - high > 0.02 else "more and more" if high - low > 0.02 else "about equally"
        return (
            f"The vectors of words are {trend} like those before from the bottom up: their likeness (CKA) is {low:.2f} "
            f"after layer {first} and {high:.2f} after layer {last}."
        )


def rank_order(values: Sequence[float]) -> int:
    """Return 1 where values rise on the whole (Spearman's rank correlation with their place over 0.5), -1, or 0."""
    if len(values) < 3:
        return int(np.sign(values[-1] - values[0]))
    ranks = np.argsort(np.argsort(values))
    together = float(np.corrcoef(ranks, np.arange(len(values)))[0, 1])
    return 1 if together > 0.5 else -1 if together < -0.5 else 0


def cost(back: Mapping[str, Any], *, many: bool = False) -> str:
    """Say what a roll-back of one thing or of many does to accuracy, and whether that is more than chance."""
    change = back["change"]
    verb = ("cost" if change["value"] <= 0 else "gain") + ("" if many else "s")
    if change["value"] == 0 and not beyond_chance(back):
        return f"{verb} nothing ({_interval(change)})"
    chance = "" if beyond_chance(back) else ", no more than chance would"
    return f"{verb} {page.points(change['value'])} of accuracy ({_interval(change)}){chance}"


def beyond_chance(back: Mapping[str, Any]) -> bool:
    """Say whether a roll-back changes accuracy by more than chance: no change is not in the interval."""
    return not back["change"]["low"] <= 0 <= back["change"]["high"]


def _interval(change: Mapping[str, float]) -> str:
    return f"95 % interval {_signed(change['low'])} to {_signed(change['high'])}"


def _signed(share: float) -> str:
    return f"{100 * share:+.1f}".replace("-", "\N{MINUS SIGN}")


def _drift_section(found: _Found) -> page.Section:
    says = [found.moved()]
    if not found.frozen:
        by_module = {
            module: float(np.mean([found.drifts[name, module] for name in found.layers])) for module in MODULES
        }
        most, least = max(by_module, key=by_module.__getitem__), min(by_module, key=by_module.__getitem__)
        says.append(
            f"Of what layers are made of, {most} moved most ({page.percent(by_module[most])} on average over the "
            f"layers), and {least} least ({page.percent(by_module[least])})."
        )
    says.append(
        "The embedding tables are as they were: fine-tuning was told to leave them alone"
        + (
            " (--freeze embeddings, which is what it does with pretrained ones unless told otherwise)."
            if found.model["freeze"] == "embeddings"
            else "."
        )
        if found.kept
        else f"The embedding tables moved by {page.percent(found.drifts[EMBEDDINGS, 'all'])} of their length."
    )
    says.append(
        f"The head began at random and moved by {page.percent(found.drifts[HEAD, 'all'], 0)} of the length it had."
    )
    shown = [(name, 100 * value) for name, value in found.moves if value >= UNMOVED]
    if not found.kept:
        shown.insert(0, (EMBEDDINGS, 100 * found.drifts[EMBEDDINGS, "all"]))
    figures = []
    if shown:
        figures = [
            charts.bars("Drift of each layer", shown[::-1], x="change, % of the length at the start"),
            charts.grid(
                "Drift within the layers",
                [[100 * found.drifts[name, module] for name in found.layers] for module in MODULES[::-1]],
                rows=MODULES[::-1],
                columns=[name.removeprefix("layer ") for name in found.layers],
                x="layer",
                y="",
                low=0,
            ),
        ]
    return page.Section(
        "How far the weights moved",
        measured=[
            "For each layer, and each module in it, the length of the difference between its weights after and before "
            "fine-tuning, as a share of the length they had before. Weights and biases of a module count as one vector."
        ],
        says=says,
        limits=[
            "A long way is not an important one: whether the model needs a change, rolling it back shows, below.",
            f"Training itself gave each layer a learning rate {found.model['layer_decay']:g} times that of the layer "
            "above it, so that lower layers had to move less."
            if found.model["recorded"] and found.model["layer_decay"] < 1
            else "Learning rates that differ from layer to layer would show here too.",
            "A share is of the length that the weights began with, and modules begin with different lengths: shares of "
            "one module across the layers can be compared, those of different modules only roughly.",
        ],
        figures=figures,
        tables=[
            page.Table(
                "Drift of every part",
                ["part", "module", "change, % of its length"],
                [(one["block"], one["module"], 100 * one["drift"]) for one in found.result["drift"]],
            )
        ],
    )


def _types_sections(found: _Found) -> list[page.Section]:
    types = found.result["types"]
    if types is None:
        return []
    top = types["top"]
    says = [f"The row of {top[0]['type']!r} moved furthest, by {page.percent(top[0]['drift'])} of its length."]
    seen, unseen = types.get("seen"), types.get("unseen")
    if types["learnt_is_exact"] and unseen["drift"] is not None:
        says.append(
            f"Rows of the {seen['types']:,} word types that the training rows have moved by "
            f"{page.percent(seen['drift'], 2)} on average, those of the {unseen['types']:,} others by "
            f"{page.percent(unseen['drift'], 2)}"
            + (
                ": only what is read is taught."
                if seen["drift"] > 2 * unseen["drift"]
                else ": what was never read moved as well, by weight decay alone."
            )
        )
    return [
        page.Section(
            "Which words moved",
            measured=[
                "For each word type, which has one row in the embedding matrix, the length of the change of that row "
                "as a share of its length before, and how often the type occurs in the rows."
            ],
            says=says,
            limits=[
                "The share of a row that was short to begin with is large for a small change.",
                *(
                    []
                    if types["learnt_is_exact"]
                    else ["Which rows the model learnt from is not known exactly; the counts are of those found."]
                ),
            ],
            tables=[
                page.Table(
                    "Word types whose row moved furthest",
                    ["word type", "change, %", "in training rows", "in DATA"],
                    [(one["type"], 100 * one["drift"], one["learnt"], one["data"]) for one in top],
                )
            ],
        )
    ]


def _alike_section(found: _Found) -> page.Section:
    kinds = {"tokens": "vectors of words", "sentences": "vectors of sentences"}
    known = {kind: name for kind, name in kinds.items() if found.result["alike"][kind]}
    pooled = "the mean of its tokens" if found.model["pooling"] == "mean" else "that of its first token"
    places = ["0", *(str(number) for number in range(1, len(found.layers) + 1))]
    figures: list[Any] = [
        charts.lines(
            "Likeness of each layer to itself before",
            [
                charts.Line(name, [(i, value) for i, value in enumerate(found.diagonal(kind)) if value is not None])
                for kind, name in known.items()
            ],
            x="layer (0: embeddings)",
            y="CKA",
            x_ticks=[int(place) for place in places[:: max(1, len(places) // 8)]] if len(places) <= 9 else None,
        )
    ]
    figures += [
        charts.grid(
            f"Layers before and after: {name.removeprefix('vectors of ')}",
            [
                [float("nan") if value is None else value for value in line]
                for line in found.result["alike"][kind]["grid"]
            ],
            rows=places,
            columns=places,
            x="layer, fine-tuned",
            y="layer, before",
            low=0,
            high=1,
        )
        for kind, name in known.items()
    ]
    says = [found.likeness()]
    sentences = [value for value in found.diagonal("sentences")[1:] if value is not None]
    if sentences:
        says.append(
            f"Of whole sentences, the likeness is {sentences[0]:.2f} after layer 1 and {sentences[-1]:.2f} after layer "
            f"{len(found.layers)}."
        )
    says += [text for kind, name in known.items() if (text := _nearest(found, kind, name))]
    counted = {kind: found.result["alike"][kind]["things"] for kind in known}
    return page.Section(
        "How alike the representations are",
        measured=[
            "Linear CKA (Kornblith et al. 2019) with the unbiased estimator of HSIC: 1 where the vectors of one model "
            "are those of the other turned, mirrored or scaled as a whole, near 0 where they have nothing in common. "
            f"Compared are {joined([f'{counted[kind]:,} {name}' for kind, name in known.items()])}, "
            f"after the embeddings and after every layer. The vector of a sentence is {pooled}, which is what the head "
            "reads at the top; a word is a token here, [CLS], [SEP] and their like left out.",
        ],
        says=says,
        limits=[
            "CKA is ruled by the directions in which vectors vary most. A change that decides between two labels can "
            "be small in it, and a large one may decide nothing.",
            "It compares how vectors lie to each other, not what they stand for.",
        ],
        figures=figures,
    )


def _nearest(found: _Found, kind: str, name: str) -> str | None:
    """Say to which layer before the top of the fine-tuned model is most alike."""
    column = [(line[-1], i) for i, line in enumerate(found.result["alike"][kind]["grid"]) if line[-1] is not None]
    if not column:
        return None
    value, place = max(column)
    top = len(found.layers)
    if place == top:
        return (
            f"At the top, the fine-tuned {name} are more like those of that layer before ({value:.2f}) than any others."
        )
    where = "the embeddings" if place == 0 else f"layer {place}"
    return (
        f"At the top, the fine-tuned {name} are most like those of {where} before ({value:.2f}), not those of layer "
        f"{top} ({column[-1][0]:.2f})."
    )


def _rollback_section(found: _Found) -> page.Section:
    untouched, everything, head = (found.back(name) for name in ("nothing", "everything", HEAD))
    top = len(found.layers)
    costly = [one for one in found.singles if beyond_chance(one) and one["change"]["value"] < 0]
    says = [
        f"Untouched, the model has {page.percent(untouched['accuracy'])} of the rows right; with everything rolled "
        f"back it is its start, and has {page.percent(everything['accuracy'])}.",
        found.halves(),
    ]
    if top > 1:
        says.append(
            f"Of single layers, undoing {joined([one['name'] for one in costly])} costs more than chance would: "
            + joined([f"{page.points(one['change']['value'])} for {one['name']}" for one in costly])
            + "."
            if costly
            else "No single layer, undone alone, costs more accuracy than chance would: the others make up for it."
        )
        says.append(_free(found))
    says.append(
        "Rolling back the embeddings changes nothing, as they never moved."
        if found.kept
        else f"The embeddings, rolled back alone, {cost(found.back(EMBEDDINGS), many=True)}."
    )
    says.append(
        f"With the head alone rolled back, {page.percent(head['accuracy'])} are right: the head as it began knows next "
        "to nothing of the labels."
        if head["accuracy"] < (untouched["accuracy"] + everything["accuracy"]) / 2
        else f"With the head alone rolled back, {page.percent(head['accuracy'])} are still right: the layers below "
        "learnt to suit even the head as it began."
    )
    along = range(top + 1)
    figures = [
        charts.lines(
            "Layers rolled back from either side",
            [
                _curve("from the bottom up", [(k, found.lowest(k)) for k in along], untouched),
                _curve("from the top down", [(k, found.highest(k)) for k in along], untouched),
            ],
            x="layers rolled back",
            y="accuracy",
            x_ticks=list(along) if top <= 12 else None,
        )
    ]
    if top > 1:
        figures.append(
            charts.lines(
                "One layer rolled back",
                [
                    _curve("with that layer rolled back", list(enumerate(found.singles, start=1)), untouched),
                    charts.Line("untouched", [(1, untouched["accuracy"]), (top, untouched["accuracy"])]),
                ],
                x="layer",
                y="accuracy",
                x_ticks=list(along)[1:] if top <= 12 else None,
            )
        )
    return page.Section(
        "What happens when layers are rolled back",
        measured=[
            "A block of layers gets the weights it started with, all others keep what they learnt, nothing is trained "
            f"again, and the model labels {found.rows:,} rows (Hao et al. 2019). Intervals (95 %) are of the change "
            "from the untouched model on the same rows; p is of McNemar's exact test.",
        ],
        says=says,
        limits=[
            "A layer that costs much when it is undone is one that the layers above have come to rely on. Had it been "
            "kept as it was while the others learnt, they might have done without its change.",
            f"Of {len(found.backs) - 1} comparisons, one in twenty is beyond chance by chance alone.",
        ],
        figures=figures,
        tables=[
            page.Table(
                "Every roll-back",
                ["rolled back", "accuracy, %", "loss", "change, points", "95 % interval", "p"],
                [
                    (
                        _told(one),
                        f"{100 * one['accuracy']:.2f}",
                        one["loss"],
                        f"{100 * one['change']['value']:+.2f}",
                        f"{100 * one['change']['low']:+.2f} to {100 * one['change']['high']:+.2f}",
                        one["p"],
                    )
                    for one in found.backs.values()
                ],
            )
        ],
    )


def _told(back: Mapping[str, Any]) -> str:
    name: str = back["name"]
    return f"{name} layers" if name.startswith(("lowest", "highest")) else name


def _free(found: _Found) -> str:
    """Say how many layers from the bottom can be undone for nothing."""
    top = len(found.layers)
    free = next((k - 1 for k in range(1, top + 1) if beyond_chance(found.lowest(k))), top)
    if free == 0:
        return "Already the lowest layer cannot be undone without a difference beyond chance."
    if free == top:
        return (
            "Even all layers together can be undone without a difference beyond chance: the head alone does the work."
        )
    which = "The lowest layer can" if free == 1 else f"The lowest {free} layers can together"
    return f"{which} be undone without a difference beyond chance; with one more there is one."


def _curve(name: str, backs: Sequence[tuple[int, Mapping[str, Any]]], untouched: Mapping[str, Any]) -> charts.Line:
    base = untouched["accuracy"]
    return charts.Line(
        name,
        [(place, one["accuracy"]) for place, one in backs],
        [
            (max(0.0, base + one["change"]["low"]), min(1.0, base + one["change"]["high"]))
            if one["name"] != "nothing"
            else (base, base)
            for _, one in backs
        ],
    )
