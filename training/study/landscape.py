"""Why does a good start lead to a good end? The loss between start and end, around the path, and near the end."""

from __future__ import annotations

import math
import time
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from training.base import load_config
from training.data import check_known, fingerprint, read_rows
from training.errors import DataError
from training.study.batches import Batches, some
from training.study.course import Course, follow, put, train, weights_of
from training.study.directions import around, beside, between, filter_normalised, plane_of
from training.study.ends import Ends, shared
from training.study.landscape_page import INITS, report
from training.study.run import Run
from training.train import start_model
from training.wording import counted

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from training.data import Row
    from training.settings import TrainConfig
    from training.study.course import Weights
    from training.study.directions import Plane

RATES = (1.0, 3.0, 10.0)  # that are tried, as factors of the model's own learning rate
TRIAL = 4  # a trial of a rate takes this part of the steps
FEWEST_STEPS = 20
PILOT_STEPS, PILOT_ROWS = 3, 32
TRAINING = 0.35  # share of the time for both runs and the trials of their rates
MEASURING = 0.8  # of what is left after that; the rest is for a machine that gets slower
REACH = 0.5  # of a random plane, as a share of each neuron's weights
POINTS = 10  # of a path that are kept
TRIAL_ROWS = 256  # of those learnt from, by whose loss a rate is chosen
FIRST, LAST = -0.2, 1.2  # ends of the line: 0 is the start, 1 the end
MARGIN = 0.15  # of the plane around the path, as a share of the path's extent
RADII = (0.05, 0.1, 0.2, 0.4)  # of random steps around an end, as shares of each neuron's weights


@dataclass(frozen=True)
class Plan:
    """How finely everything is measured."""

    rows: int  # of each kind, learnt from and not
    line: int  # points from FIRST to LAST
    plane: int  # points along each side of a path's plane
    around: int  # points along each side of a random plane
    directions: int  # of random steps

    @property
    def cells(self) -> int:
        """How often rows are scored before the planes: three lines on both kinds of rows, three ends."""
        return 6 * self.line + 3 * (self.directions * len(RADII) + 1)

    @property
    def squares(self) -> int:
        """How often they are scored for two planes of either kind."""
        # The plane of a path may get one row or column more, so that the end is on one.
        return 2 * self.plane * (self.plane + 1) + 2 * self.around**2


PLANS = (  # from the finest down
    Plan(1024, 29, 25, 13, 10),
    Plan(768, 29, 21, 11, 10),
    Plan(512, 15, 17, 9, 8),
    Plan(384, 15, 15, 9, 6),
    Plan(256, 15, 11, 7, 5),
    Plan(192, 15, 9, 7, 5),
    Plan(128, 8, 7, 5, 4),
    Plan(64, 8, 5, 5, 3),
)


def study(
    model: Path,
    data: Path,
    out: Path,
    *,
    train: Path | None = None,
    base: str | None = None,
    minutes: float | None = None,
    seed: int = 0,
    text_column: str = "text",
    label_column: str = "label",
    resume: bool = False,
) -> dict[str, Any]:
    """
    Look at the loss around a fine-tuned model and around its twins from two starts; write the folder of the study.

    Args:
        model: A model folder with its checkpoint, or a checkpoint.
        data: Labelled rows to measure on, which it did not learn from.
        out: Becomes the folder of the study.
        train: Rows to learn from; by default the file that the model's record names.
        base: What it was fine-tuned from, where no record says.
        minutes: How long it may take: decides the steps, the rows and how fine the grids are.
        seed: Of the rows and directions that are drawn; and of the start's head, where no record says.
        text_column: Column of the sentence.
        label_column: Column of the label.
        resume: Go on with the unfinished study of the same `out`.

    Returns:
        What study.json holds.

    Raises:
        ArtifactError, BaseModelError: the model or its start cannot be had.
        DataError: a file cannot be read, has labels that the model does not know, or no rows to learn from are named.
    """
    ends = Ends.open(model, base=base, seed=seed)
    rows = read_rows(data, text_column=text_column, label_column=label_column, multi_label=ends.multi_label)
    check_known(rows, ends.end.labels, data, model=model)
    found = ends.learnt_rows(train, text_column=text_column, label_column=label_column)
    if found is None:
        named = (ends.run or {}).get("data", {}).get("file")
        raise DataError(
            f"{model}: learnt from {named or 'rows that it does not name'}, which {'is' if named else 'are'} not here; "
            "name rows to learn from with --train"
        )
    learnt, exact = found
    settings = {
        "model": str(model),
        "data": str(data),
        "base": ends.config.base,
        "seed": seed,
        "weights": ends.fingerprint(),
        "rows": fingerprint(rows),
        "learnt": fingerprint(learnt),
    }
    with Run.open("landscape", out, settings, minutes=minutes, resume=resume) as run:
        return _Study(run, ends, rows, learnt, seed).make(exact=exact)


class _Study:
    """The measurements, in the order in which they are made."""

    def __init__(self, run: Run, ends: Ends, rows: Sequence[Row], learnt: Sequence[Row], seed: int) -> None:
        self.run, self.ends, self.rows, self.learnt, self.seed = run, ends, rows, learnt, seed
        self.learning = Batches.of(learnt, ends.end)
        self.sets: dict[str, Batches] = {}
        self.configs = {init: _config(ends.config, init) for init in INITS}

    def make(self, *, exact: bool) -> dict[str, Any]:
        """Measure everything and write the folder."""
        steps = self.run.measure("steps", self._steps)
        self.run.say(f"{steps} steps from each start, after trying {len(RATES)} learning rates for a quarter of them")
        result: dict[str, Any] = {
            "model": self.ends.describe(),
            "learnt": {"rows": len(self.learnt), "exact": exact},
            "runs": {init: self._trained(init, steps) for init in INITS},
        }
        plan = Plan(**self.run.measure("plan", lambda: asdict(self._plan())))
        self.sets = {
            "test": Batches.of(some(self.rows, plan.rows, seed=self.seed), self.ends.end),
            "train": Batches.of(some(self.learnt, plan.rows, seed=self.seed), self.ends.end),
        }
        given = {"given": len(self.rows), "shared": shared(self.rows, self.learnt)}
        result["rows"] = given | {name: len(part.rows) for name, part in self.sets.items()}
        self.run.say(
            f"each point is measured on {result['rows']['test']} rows of DATA or {result['rows']['train']} of those "
            f"learnt from, and {counted(plan.line, 'point')} on each line"
        )
        self.run.expect(plan.cells)
        self.ends.start.requires_grad_(requires_grad=True)
        self.ends.end.model.requires_grad_(requires_grad=True)
        start, end = weights_of(self.ends.start), weights_of(self.ends.end.model)
        moved = [name for name, weight in start.items() if not weight.equal(end[name])]
        start, end = ({name: weights[name] for name in moved} for weights in (start, end))
        result["lines"] = {"model": self._line("model", self.ends.end.model, start, end, plan)}
        result["sharpness"] = {"model": self._sharpness("model", self.ends.end.model, end, plan)}
        del start
        courses = {init: Course(self.run.work / f"path-{init}", result["runs"][init]["steps"]) for init in INITS}
        for init, course in courses.items():
            model, end = self._model(init), course.end
            result["lines"][init] = self._line(init, model, course.start, end, plan)
            result["sharpness"][init] = self._sharpness(init, model, end, plan)
        plan = Plan(**self.run.measure("grids", lambda: asdict(self._grids(plan))))
        result["plan"] = asdict(plan)
        self.run.say(f"planes of {plan.plane} by {plan.plane} for paths, of {plan.around} by {plan.around} at random")
        self.run.expect(plan.squares)
        result["planes"], result["around"] = {}, {}
        for init, course in courses.items():
            model, end = self._model(init), course.end
            result["planes"][init] = self._plane(init, model, plane_of(course), end, plan)
            result["around"][init] = self._around(init, model, end, plan)
        return self.run.finish(result, report)

    def _model(self, init: str) -> Any:
        config = self.configs[init]
        return start_model(config, load_config(config.base), self.ends.end.labels).eval().float()

    def _steps(self) -> int:
        """Return how many steps there is time for from each start."""
        most = math.ceil(len(self.learnt) / self.ends.config.batch_size) * (self.configs["random"].epochs or 5)
        if self.run.minutes is None:
            return max(FEWEST_STEPS, most)
        times: list[float] = []
        train(
            self._model("random"),
            self.configs["random"],
            self.learning,
            steps=PILOT_STEPS,
            after=lambda _: times.append(time.monotonic()),
        )
        each = (times[-1] - times[0]) / (len(times) - 1)
        runs = len(INITS) * (1 + len(RATES) / TRIAL)
        return min(max(FEWEST_STEPS, most), max(FEWEST_STEPS, int(TRAINING * self.run.left / (each * runs))))

    def _trained(self, init: str, steps: int) -> dict[str, Any]:
        """Fine-tune from a start at the rate that suits it best, and keep the path."""
        self.run.expect(steps * (1 + len(RATES) / TRIAL))
        tried = []
        for factor in RATES:
            rate = factor * self.configs[init].learning_rate
            config = replace(self.configs[init], learning_rate=rate)
            short = max(5, steps // TRIAL)
            loss = self.run.measure(f"{init}: trial at {rate:g}", partial(self._try, config, short))
            self.run.advance(short, f"{init}: tried a learning rate of {rate:g}")
            tried.append({"learning_rate": rate, "loss": loss})
        rate = min(tried, key=lambda trial: math.inf if trial["loss"] is None else trial["loss"])["learning_rate"]
        config = replace(self.configs[init], learning_rate=rate)
        folder = self.run.work / f"path-{init}"

        def go() -> list[int]:
            return follow(
                self._model(init),
                config,
                self.learning,
                folder,
                steps=steps,
                points=POINTS,
                after=lambda step: self.run.advance(1, f"{init}: step {step} of {steps}"),
            )

        kept = self.run.measure(f"{init}: path", go)
        return {"learning_rate": rate, "tried": tried, "steps": kept, "freeze": config.freeze}

    def _try(self, config: TrainConfig, steps: int) -> float | None:
        model = start_model(config, load_config(config.base), self.ends.end.labels).eval().float()
        train(model, config, self.learning, steps=steps)
        trial = Batches.of(some(self.learnt, TRIAL_ROWS, seed=self.seed), self.ends.end)
        return _finite(trial.score(trial.logits(model)).loss)

    def _plan(self) -> Plan:
        """Return the finest plan that there is time for."""
        if self.run.minutes is None:
            return PLANS[0]
        pilot = Batches.of(some(self.rows, PILOT_ROWS, seed=0), self.ends.end)
        pilot.logits(self.ends.end.model)  # the first is slower
        started = time.monotonic()
        pilot.logits(self.ends.end.model)
        each = (time.monotonic() - started) / len(pilot.rows)
        most = max(len(self.rows), len(self.learnt))
        fitting = (
            plan
            for plan in PLANS
            if min(plan.rows, most) * (plan.cells + plan.squares) * each < MEASURING * self.run.left
        )
        plan = next(fitting, None)
        if plan is None:
            self.run.say("the time that is left is too short for the coarsest grids, which are measured all the same")
        return plan or PLANS[-1]

    def _grids(self, plan: Plan) -> Plan:
        """Return a plan with the finest planes that there is time for: the machine may have become slower since."""
        if self.run.minutes is None:
            return plan
        started = time.monotonic()
        self.sets["train"].logits(self.ends.end.model)
        each = time.monotonic() - started
        fitting = (one for one in PLANS if one.squares * each < MEASURING * self.run.left)
        finest = next(fitting, PLANS[-1])
        return replace(plan, plane=finest.plane, around=finest.around)

    def _cell(self, key: str, model: Any, weights: Callable[[], Weights], rows: str) -> dict[str, float | None]:
        """Return what a model with some weights says of some rows."""

        def compute() -> dict[str, float | None]:
            put(model, weights())
            batches = self.sets[rows]
            score = batches.score(batches.logits(model))
            return {"loss": _finite(score.loss), "accuracy": score.accuracy}

        cell: dict[str, float | None] = self.run.measure(f"{key}: {rows}", compute)
        self.run.advance(1, key)
        return cell

    def _line(self, name: str, model: Any, start: Weights, end: Weights, plan: Plan) -> dict[str, Any]:
        places = [round(FIRST + (LAST - FIRST) * i / (plan.line - 1), 10) + 0.0 for i in range(plan.line)]
        return {"places": places} | {
            rows: [
                self._cell(f"line of {name} at {place:g}", model, partial(between, start, end, place), rows)
                for place in places
            ]
            for rows in self.sets
        }

    def _plane(self, init: str, model: Any, plane: Plane, end: Weights, plan: Plan) -> dict[str, Any]:
        sides = []
        for values in zip(*plane.path, strict=True):
            margin = MARGIN * max(max(values) - min(values), 1e-3)
            sides.append(around(min(values) - margin, max(values) + margin, plan.plane))
        grid = self._grid(f"plane of the path of {init}", model, end, (plane.first, plane.second), (sides[0], sides[1]))
        return {"path": plane.path, "shares": plane.shares} | grid

    def _around(self, init: str, model: Any, end: Weights, plan: Plan) -> dict[str, Any]:
        directions = [filter_normalised(end, seed=self.seed + k) for k in range(2)]
        side = around(-REACH, REACH, plan.around)
        return self._grid(f"random plane of {init}", model, end, (directions[0], directions[1]), (side, side))

    def _grid(
        self, key: str, model: Any, end: Weights, ways: tuple[Weights, Weights], sides: tuple[list[float], list[float]]
    ) -> dict[str, Any]:
        cells = [
            [
                self._cell(
                    f"{key} at {x:.6g}, {y:.6g}",
                    model,
                    partial(beside, end, *ways, x, y),
                    "train",
                )
                for x in sides[0]
            ]
            for y in sides[1]
        ]
        return {"x": sides[0], "y": sides[1], "loss": [[cell["loss"] for cell in row] for row in cells]}

    def _sharpness(self, name: str, model: Any, end: Weights, plan: Plan) -> dict[str, Any]:
        there = self._cell(f"end of {name}", model, lambda: end, "train")["loss"]
        rises: list[list[float | None]] = []
        for k in range(plan.directions):
            direction = filter_normalised(end, seed=1000 * (self.seed + 1) + k)
            losses = [
                self._cell(
                    f"step {k} of {radius:g} from {name}",
                    model,
                    partial(beside, end, direction, {}, radius, 0.0),
                    "train",
                )["loss"]
                for radius in RADII
            ]
            rises.append([None if loss is None or there is None else loss - there for loss in losses])
        return {"loss": there, "radii": list(RADII), "rises": rises}


def _config(config: TrainConfig, init: str) -> TrainConfig:
    """Return the settings of a run from a start: those of the model, but learning from the labels alone."""
    freeze = "none" if init == "random" else config.freeze if config.freeze in ("none", "embeddings") else "embeddings"
    return replace(
        config, init=init, freeze=freeze, consistency=0.0, soft_labels=0.0, self_distillation=0.0, teacher=None
    )


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
