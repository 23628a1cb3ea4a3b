"""The page of the study of the loss landscape: what study.json holds, in words and figures."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from training import charts
from training.study import page
from training.study.ends import STARTS, about, about_shared, name_of
from training.wording import counted, joined

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

INITS = ("pretrained", "random")  # the starts that the study follows itself


def report(record: Mapping[str, Any]) -> page.Report:
    """Return the page of what study.json holds."""
    found = _Found(record)
    ends = {init: found.at(init, "test", 1.0) for init in INITS}
    return page.Report(
        title=f"The loss around {name_of(record['settings']['model'])}",
        question="Why does a good start lead to a good end?",
        answer=[found.reached(), found.along(), found.flatness()],
        tiles=[
            (
                f"{STARTED[init].capitalize()}, after {found.steps:,} steps",
                page.percent(ends[init]["accuracy"]),
                f"of {found.rows['test']:,} rows right; loss {_loss(ends[init]['loss'])}",
            )
            for init in INITS
        ]
        + [
            (
                f"A random step of {page.percent(found.radius, 0)} adds",
                " / ".join(_gain(found.rise(init)[0]) for init in INITS),
                "to the loss at the end: pretrained / random start",
            )
        ],
        sections=[_line_section(found), *_plane_sections(found), _sharpness_section(found)],
        about=[
            *about(found.model),
            *_made(found),
            *about_shared(found.rows),
            *page.about_base(found.model["base"]),
        ],
    )


STARTED = {"pretrained": "pretrained start", "random": "random start"}


class _Found:
    """What study.json holds, as the page asks for it."""

    def __init__(self, record: Mapping[str, Any]) -> None:
        result = record["result"]
        self.result = result
        self.model = result["model"]
        self.runs, self.rows, self.plan = result["runs"], result["rows"], result["plan"]
        self.rates = len(self.runs["pretrained"]["tried"])
        self.steps: int = self.runs["pretrained"]["steps"][-1]
        self.radius: float = result["sharpness"]["model"]["radii"][2]

    def at(self, name: str, rows: str, place: float) -> dict[str, Any]:
        """Return what was measured at a place of a line."""
        line = self.result["lines"][name]
        cell: dict[str, Any] = line[rows][line["places"].index(place)]
        return cell

    def inside(self, name: str, rows: str) -> list[tuple[float, float]]:
        """Return place and loss from the start to the end of a line; what is no number counts as infinite."""
        line = self.result["lines"][name]
        pairs = zip(line["places"], line[rows], strict=True)
        return [(place, _number(cell["loss"])) for place, cell in pairs if 0 <= place <= 1]

    def course(self, name: str, rows: str) -> str:
        """Say how the loss goes from the start of a line to its end."""
        losses = self.inside(name, rows)
        first, last = losses[0][1], losses[-1][1]
        least = 0.01 * abs(first - last)
        where, top = max(losses, key=lambda pair: pair[1])
        if top > max(first, last) + least:
            return f"rises from {_loss(first)} to {_loss(top)} at {where:g} of the way before it comes to {_loss(last)}"
        place, least_loss = min(losses, key=lambda pair: pair[1])
        if least_loss < min(first, last) - least:
            return f"falls from {_loss(first)} to {_loss(least_loss)} at {place:g} of the way and ends at {_loss(last)}"
        rises = [after > before + least for (_, before), (_, after) in pairwise(losses)]
        if last > first:
            return f"rises from {_loss(first)} to {_loss(last)}: that end is worse than its start"
        if not any(rises):
            return f"falls from {_loss(first)} to {_loss(last)} without a hill on the way"
        return f"falls from {_loss(first)} to {_loss(last)}, with a hill on the way that stays below the start"

    def width(self, name: str, rows: str) -> tuple[float, float]:
        """Return between which places around the end the loss stays no more than a tenth of its change above it."""
        line = self.result["lines"][name]
        losses = [_number(cell["loss"]) for cell in line[rows]]
        places = line["places"]
        middle = places.index(1.0)
        limit = losses[middle] + 0.1 * abs(self.inside(name, rows)[0][1] - losses[middle])
        low = high = middle
        while low > 0 and losses[low - 1] <= limit:
            low -= 1
        while high < len(places) - 1 and losses[high + 1] <= limit:
            high += 1
        return places[low], places[high]

    def rise(self, name: str) -> tuple[float, float, int]:
        """Return the mean rise of the loss by a random step, its standard deviation, and the number of directions."""
        sharpness = self.result["sharpness"][name]
        k = sharpness["radii"].index(self.radius)
        rises = [_number(rises[k]) for rises in sharpness["rises"]]
        return float(np.mean(rises)), float(np.std(rises, ddof=1)) if len(rises) > 1 else 0.0, len(rises)

    def learnt(self, init: str) -> bool:
        """Say whether a run brought the loss on the rows it learnt from down by half."""
        losses = self.inside(init, "train")
        return losses[-1][1] < 0.5 * losses[0][1]

    def reached(self) -> str:
        """Say where both starts came with the same steps."""
        one, other = (self.at(init, "test", 1.0) for init in INITS)
        figures = (
            f"With {self.steps:,} steps each, on the same rows and at the best of {self.rates} learning rates, the "
            f"pretrained start came to {page.percent(one['accuracy'])} of {self.rows['test']:,} rows right "
            f"(loss {_loss(one['loss'])}) and the random start to {page.percent(other['accuracy'])} "
            f"(loss {_loss(other['loss'])})"
        )
        # Two shares of the same rows, taken as if of others: on the safe side.
        error = sum(cell["accuracy"] * (1 - cell["accuracy"]) for cell in (one, other)) / self.rows["test"]
        ahead = one["accuracy"] - other["accuracy"]
        if abs(ahead) <= 2 * math.sqrt(error):
            return f"{figures}: no difference that so many rows can show."
        return f"{figures}: the {'pretrained' if ahead > 0 else 'random'} start is ahead by {page.points(ahead)}."

    def along(self) -> str:
        """Say how the loss goes along the two lines."""
        one, other = (self.course(init, "test") for init in INITS)
        return f"Straight from start to end, the loss of the pretrained start {one}; that of the random start {other}."

    def flatness(self) -> str:
        """Say which end is the flatter."""
        (one, spread, count), (other, other_spread, other_count) = (self.rise(init) for init in INITS)
        text = (
            f"A random step of {page.percent(self.radius, 0)} of all neurons' weights changes the loss by {_gain(one)}"
            f" (± {_loss(spread)} over {count} directions) at the end from the pretrained start and by {_gain(other)} "
            f"(± {_loss(other_spread)}) at the end from the random one"
        )
        error = math.sqrt(spread**2 / count + other_spread**2 / other_count)
        if not math.isfinite(one - other) or abs(one - other) <= 2 * error:
            return f"{text}: which is the flatter, these directions do not say."
        text = f"{text}: the {'pretrained' if one < other else 'random'} start leads to the flatter end."
        flat = "pretrained" if one < other else "random"
        if not self.learnt(flat):
            text += " But that run has hardly learnt yet, and where nothing is learnt the loss is flat."
        return text


def _line_section(found: _Found) -> page.Section:
    model_start = STARTS[found.model["init"]]
    lines = found.result["lines"]
    places = lines["model"]["places"]
    names = {"model": f"this model, from {model_start}"} | STARTED
    says = [
        f"Of this model, which began with {model_start}, the loss on DATA {found.course('model', 'test')}, and "
        f"accuracy goes from {page.percent(found.at('model', 'test', 0.0)['accuracy'])} to "
        f"{page.percent(found.at('model', 'test', 1.0)['accuracy'])}.",
        found.along(),
    ]
    for init in INITS:
        low, high = found.width(init, "test")
        beyond = ", and maybe further" if high == places[-1] else ""
        says.append(
            f"From the {STARTED[init]}, the loss is no more than a tenth of its whole change above its end, from "
            f"{low:g} to {high:g} of the way{beyond}."
        )
    gaps = {
        init: _number(found.at(init, "test", 1.0)["loss"]) - _number(found.at(init, "train", 1.0)["loss"])
        for init in INITS
    }
    says.append(
        "At the end, the loss on DATA is "
        + joined(
            [
                f"{_loss(abs(gap))} {'above' if gap >= 0 else 'below'} that on rows learnt from ({STARTED[init]})"
                for init, gap in gaps.items()
            ]
        )
        + "."
    )

    def chart(title: str, what: str, series: Sequence[tuple[str, str, str]]) -> Any:
        return charts.lines(
            title,
            [
                charts.Line(label, list(zip(lines[name]["places"], values, strict=True)))
                for name, rows, label in series
                if (values := [_number(cell[what]) for cell in lines[name][rows]])
            ],
            x="0: start, 1: end",
            y=what,
            x_ticks=[places[0], 0.0, 0.2, 0.4, 0.6, 0.8, 1.0, places[-1]],
            mark=1.0,
        )

    everyone = [(name, "test", label) for name, label in names.items()]
    both = [(init, rows, f"{STARTED[init]}, {kind}") for init in INITS for rows, kind in KINDS.items()]
    return page.Section(
        "Straight from start to end",
        measured=[
            "The weights at a place of the line are a mix of those of the start and those of the end (Goodfellow et al."
            " 2015): at 0 the start, at 1 the end, beyond 1 further the same way. At "
            f"{counted(found.plan['line'], 'place')} the model labels {found.rows['test']:,} rows of DATA and "
            f"{found.rows['train']:,} rows that it learnt from. Besides this model, two runs that the study made are "
            "shown, one from either start."
        ],
        says=says,
        limits=[
            "Training does not go straight: a hill on the line is not one that it had to climb, and no hill does not "
            "mean an easy way.",
            "A line that starts elsewhere is another line: the lengths of the three are not the same.",
        ],
        figures=[
            chart("Loss on DATA", "loss", everyone),
            chart("Accuracy on DATA", "accuracy", everyone),
            chart("Loss on rows learnt from, and on others", "loss", both),
        ],
        tables=[
            page.Table(
                "Every place of the lines",
                [
                    "place",
                    *(
                        f"{label}: {what}"
                        for label in ("this model", *STARTED.values())
                        for what in ("loss", "accuracy")
                    ),
                ],
                [
                    (
                        f"{place:g}",
                        *(lines[name]["test"][i][what] for name in names for what in ("loss", "accuracy")),
                    )
                    for i, place in enumerate(places)
                ],
            )
        ],
    )


KINDS = {"test": "DATA", "train": "learnt from"}


def _plane_sections(found: _Found) -> list[page.Section]:
    planes, arounds = found.result["planes"], found.result["around"]
    grids = [part[init]["loss"] for part in (planes, arounds) for init in INITS]
    low = min(value for grid in grids for row in grid for value in row if value is not None)
    # What is worse than knowing nothing is all the same.
    guess = guessing(found.model)
    high = max(low * 1.01, 1.25 * guess)
    colours = (
        f"The loss is that on {counted(found.rows['train'], 'row')} learnt from. The stronger a square, the "
        f"higher: from {_loss(low)} to {_loss(high)} or more, which is a quarter above what guessing gives "
        f"({_loss(guess)}); the scale is the same in all four planes of this page."
    )

    def draw(title: str, grid: Mapping[str, Any], path: Sequence[Sequence[float]], x: str, y: str) -> Any:
        return charts.grid(
            title,
            [[min(_number(value), 1e30) for value in row] for row in grid["loss"]],
            rows=_places(grid["y"]),
            columns=_places(grid["x"]),
            x=x,
            y=y,
            low=low,
            high=high,
            path=[_square(grid, point) for point in path],
            numbers=False,
        )

    held = {init: [page.percent(share, 0) for share in planes[init]["shares"]] for init in INITS}
    path = page.Section(
        "The plane of the path",
        measured=[
            "The plane goes through the end and holds as much of the path as a plane can: its directions are the first "
            f"two principal directions of {counted(len(planes['pretrained']['path']), 'point')} that the weights "
            "came past, seen from the end (Li et al. 2018, section 7). Units are distances between weights. The line "
            "is the path, from its start to the disc at its end.",
            colours,
        ],
        says=[_told_path(init, planes[init]) for init in INITS],
        limits=[
            "Two are few of millions of directions. What looks like a wall may have a way round it that no picture "
            "shows, and the points of the path lie above or below the plane, where the loss is another.",
            "The planes of the two starts have other directions and other units of length: shapes can be compared, "
            "places cannot.",
        ],
        figures=[
            draw(
                f"Plane of the path, {STARTED[init]}",
                planes[init],
                planes[init]["path"],
                f"first direction ({held[init][0]} of the path)",
                f"second ({held[init][1]})",
            )
            for init in INITS
        ],
    )
    low_squares = {
        init: [_number(value) < 0.5 * guess for row in arounds[init]["loss"] for value in row] for init in INITS
    }
    shares = {init: sum(squares) / len(squares) for init, squares in low_squares.items()}
    count = len(low_squares["pretrained"])
    one, other = shares["pretrained"], shares["random"]
    random = page.Section(
        "A random plane around the end",
        measured=[
            "This plane goes through the end along two random directions, in which every neuron's weights are as long "
            "as they are in the model (filter normalisation, Li et al. 2018): 0.5 adds half as much noise as there is "
            "weight. "
            "Biases, layer norms and embedding tables stay as they are. The disc is the end.",
            colours,
        ],
        says=[
            _told_valleys(one, other, count),
        ],
        limits=["Another two random directions give another picture; the section below tells how much they differ."],
        figures=[
            draw(
                f"Random plane around the end, {STARTED[init]}",
                arounds[init],
                [(0.0, 0.0)],
                "first random direction",
                "second random direction",
            )
            for init in INITS
        ],
    )
    return [path, random]


def _told_valleys(one: float, other: float, count: int) -> str:
    if not one + other:
        return (
            "The loss is nowhere below half of what guessing gives: neither run has learnt enough to lie in a valley."
        )
    text = (
        f"The loss is below half of what guessing gives in {page.percent(one, 0)} of {count} squares around the end "
        f"from the pretrained start, and in {page.percent(other, 0)} around the end from the random start"
    )
    if not one * other:
        return (
            f"{text}, which has not come so low itself." if one else f"{text}; the former has not come so low itself."
        )
    if abs(one - other) * count < 2:
        return f"{text}: as wide a valley around either, as far as these squares tell."
    return f"{text}: the valley around the end from the {'pretrained' if one > other else 'random'} start is the wider."


def _told_path(init: str, plane: Mapping[str, Any]) -> str:
    first, second = plane["shares"]
    picture = "a fair picture of it" if first + second > 0.8 else "only a part of it"
    straight = math.hypot(*plane["path"][0])
    way = sum(math.dist(one, other) for one, other in pairwise(plane["path"]))
    bend = "almost straight" if way < 1.1 * straight else "in a bend"
    return (
        f"From the {STARTED[init]}, the plane holds {page.percent(first + second, 0)} of the path: {picture}. In the "
        f"plane, the path goes {bend}: {way:.3g} long, between a start and an end that are {straight:.3g} apart."
    )


def _sharpness_section(found: _Found) -> page.Section:
    sharpness = found.result["sharpness"]
    names = {"model": f"this model, from {STARTS[found.model['init']]}"} | STARTED
    series, table = [], []
    for name, label in names.items():
        part = sharpness[name]
        points, spread = [(0.0, 0.0)], [(0.0, 0.0)]
        for k, radius in enumerate(part["radii"]):
            rises = [_number(rises[k]) for rises in part["rises"]]
            points.append((radius, float(np.mean(rises))))
            spread.append((min(rises), max(rises)))
        series.append(charts.Line(label, points, spread))
        table.append((label, part["loss"], *(_brief(rise) for _, rise in points[1:])))
    mean, deviation, _ = found.rise("model")
    return page.Section(
        "How sharp the ends are",
        measured=[
            f"From each end, steps in {counted(found.plan['directions'], 'random direction')}, filter-normalised "
            "as above, of several lengths: how much the loss on rows learnt from rises, on average and from the least "
            "to the most.",
        ],
        says=[
            found.flatness(),
            f"At the end of this model the same step changes it by {_gain(mean)} (± {_loss(deviation)}).",
        ],
        limits=[
            "Layer normalisation makes a network answer the same when the weights before it are scaled; sharpness "
            "without filter normalisation would change with that scale, and with it does not. It still does not say "
            "how well a model does on other rows: flat ends often do, not always (Dinh et al. 2017).",
            "A higher loss at the end leaves less to rise: compare the ends only where both have learnt.",
        ],
        figures=[
            charts.lines(
                "Loss added by a random step", series, x="step, share of each neuron's weights", y="loss added"
            )
        ],
        tables=[
            page.Table(
                "Loss at each end, and what steps add on average",
                ["end", "loss", *(page.percent(radius, 0) for radius in sharpness["model"]["radii"])],
                table,
            )
        ],
    )


def _made(found: _Found) -> list[str]:
    runs = found.runs
    tried = [
        f"{trial['learning_rate']:g} (loss {_loss(trial['loss'])})" for init in INITS for trial in runs[init]["tried"]
    ]
    texts = [
        f"From either start the study fine-tuned for {found.steps:,} steps with the settings of this model, on the "
        "labels alone: same rows, order, batches, warm-up and decay. Each learning rate was tried for a quarter of the "
        "steps, and the one with the lowest loss on rows learnt from was taken. Pretrained start: "
        f"{joined(tried[: found.rates])}, taken {runs['pretrained']['learning_rate']:g}. Random start: "
        f"{joined(tried[found.rates :])}, taken "
        f"{runs['random']['learning_rate']:g}.",
        "The pretrained start kept its embedding tables as they were; the random start trained its own."
        if runs["pretrained"]["freeze"] == "embeddings"
        else "Both starts trained all of their weights.",
        "Everything is measured in evaluation mode, without dropout, in float32. The loss is the cross-entropy of the "
        "labels, without what the training of this model may have added to it.",
        f"The time allowed chose {found.steps:,} steps, {found.rows['test']:,} of {found.rows['given']:,} rows of DATA,"
        f" {found.rows['train']:,} of {found.result['learnt']['rows']:,} rows learnt from, and grids of about "
        f"{found.plan['plane']} by {found.plan['plane']}. More --minutes make everything finer.",
    ]
    if not found.result["learnt"]["exact"]:
        texts.append(
            "The rows called learnt from are those that were named; whether this model learnt from the very same ones "
            "is not known."
        )
    return texts


def guessing(model: Mapping[str, Any]) -> float:
    """Return the loss of giving every label the same probability."""
    return math.log(2) if model["multi_label"] else math.log(model["labels"])


def _number(value: float | None) -> float:
    return math.inf if value is None else value


def _loss(value: float | None) -> str:
    value = _number(value)
    if abs(value) < 0.0005:
        return "0.000"
    return f"{value:.2f}" if abs(value) >= 0.1 else f"{value:.2g}"


def _gain(value: float) -> str:
    sign = "+" if value > 0 else "\N{MINUS SIGN}"
    return f"{sign}{_loss(abs(value))}" if abs(value) >= 0.0005 else _loss(value)


def _brief(value: float) -> str:
    return f"{value:.3g}"


def _places(values: Sequence[float]) -> list[str]:
    """Name every other square of a side at most, 0 among them."""
    every = max(1, math.ceil(len(values) / 6))
    middle = values.index(0.0)
    return [f"{value:.2g}" if (i - middle) % every == 0 else "" for i, value in enumerate(values)]


def _square(grid: Mapping[str, Any], point: Sequence[float]) -> tuple[float, float]:
    """Return the place of a point in columns and rows of a grid."""
    column, row = (
        (value - side[0]) / ((side[1] - side[0]) if len(side) > 1 else 1)
        for value, side in zip(point, (grid["x"], grid["y"]), strict=True)
    )
    return column, row
