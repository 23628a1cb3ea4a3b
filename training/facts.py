"""What report and card say of a model, so that both say the same."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from inference.reference import SETS
from training.settings import CHOOSING_ROWS
from training.wording import between, counted, joined, percent, probability

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from inference.artifact import Manifest
    from training.gates import Gate
    from training.metrics import Answered, Measured

CROSSED = "cross-validation"  # rows that other models were asked about
WAYS = {  # of learning from few examples, as `training.few` names them
    "frozen": "the classifier fitted, nothing else learns",
    "frozen-named": "the classifier fitted, nothing else learns; names of labels as texts too",
    "tuned": "fine-tuned from the fitted classifier",
    "tuned-named": "fine-tuned from the fitted classifier; names of labels as texts too",
}


@dataclass(frozen=True)
class Facts:
    """A model, what was measured and proved, and sentences about it: plain text, which templates escape."""

    manifest: Manifest
    measured: Mapping[str, Measured]  # by the name of the rows
    gates: Sequence[Gate]
    run: Mapping[str, Any] | None  # record of the run that made it; None of a checkpoint that was made elsewhere

    @classmethod
    def of(
        cls, manifest: Manifest, measured: Mapping[str, Measured], gates: Sequence[Gate], run: Mapping[str, Any] | None
    ) -> Facts:
        """Return the facts; sets without a row count as not measured."""
        return cls(manifest, {name: one for name, one in measured.items() if len(one.rows)}, gates, run)

    @property
    def several(self) -> bool:
        """Whether a text may have several labels."""
        return self.manifest.problem_type == "multi_label"

    @property
    def data(self) -> Mapping[str, Any] | None:
        """What the data checks found."""
        return self.run.get("data") if self.run else None

    @property
    def main(self) -> str | None:
        """The rows to judge the model by: those that nothing was chosen on, where there are any."""
        return next((name for name in SETS if name in self.measured), next(iter(self.measured), None))

    @property
    def best(self) -> Measured | None:
        """What was measured on these rows."""
        return self.measured[self.main] if self.main else None

    @property
    def speed(self) -> dict[str, float]:
        """Texts a second on one core by precision; empty where it was not measured."""
        timed = next((gate.measured for gate in self.gates if gate.name == "int8_speed"), {})
        suffix = "_texts_per_second"
        return {name.removesuffix(suffix): value for name, value in timed.items() if name.endswith(suffix)}

    @property
    def chosen(self) -> dict[str, float] | None:
        """The epoch whose weights the model has."""
        if not self.run:
            return None
        return next((epoch for epoch in self.run["history"] if epoch["epoch"] == self.run["chosen_epoch"]), None)

    @property
    def final(self) -> dict[str, float] | None:
        """How the run ended with all rows, those that chose the epoch too (`training.final`); None if it did not."""
        return self.run.get("final") if self.run else None

    @property
    def chooses(self) -> bool:
        """Whether the development rows were enough to choose the epoch by."""
        return not self.run or bool(self.run["dev_rows"]["count"] >= CHOOSING_ROWS)

    @property
    def ways(self) -> list[dict[str, Any]]:
        """The ways of learning from few examples that cross-validation judged, the one that was taken among them."""
        crossed: Mapping[str, Any] = (self.run or {}).get("cross_validation", {})
        return [
            {"way": WAYS[name], "taken": name == crossed["chosen"], **told}
            for name, told in crossed.get("ways", {}).items()
        ]

    @property
    def learnt(self) -> str:
        """What was learnt from: rows, and names of labels where they were learnt as texts (`training.few`)."""
        assert self.run is not None  # noqa: S101  what was learnt is in its record alone
        names = self.run.get("cross_validation", {}).get("names", 0)
        rows = counted(self.run["train_rows"]["count"] - names, "row")
        named = f" and the names of {counted(names, 'label')}" if names else ""
        parts = [f"{rows}{named} to learn from"]
        if dev := self.run["dev_rows"]["count"]:
            parts.append(f"{counted(dev, 'row')} to {'choose the epoch by' if self.chooses else 'develop on'}")
        if self.final:
            parts.append(f"and all {self.final['rows']:,.0f} to learn from in the end")
        tested = f"; {counted(len(self.measured['test'].rows), 'row')} to test" if "test" in self.measured else ""
        return f"{', '.join(parts)}{tested}."

    @property
    def objective(self) -> str:
        """What training minimised, beside what the development loss is, where there is one."""
        assert self.run is not None  # noqa: S101  how it was trained is in its record alone
        config = self.run["config"]
        by = [
            "what the other rows say" if config.get("soft_labels") else "",
            "what the model said an epoch before" if config.get("self_distillation") else "",
        ]
        softened = joined(list(filter(None, by)))
        parts = [
            f"the loss on labels softened by {softened}" if any(by) else "the loss on the labels",
            "the distance between two passes over a sentence" if config.get("consistency") else "",
            "the distance to what a teacher says" if config.get("teacher") else "",
        ]
        weighed = ", rare labels weighing more" if config.get("class_weights") == "balanced" else ""
        told = (
            "The training objective is the mean over an epoch of what is minimised, with neurons dropped: "
            f"{joined(list(filter(None, parts)))}{weighed}."
        )
        if any("dev_loss" in epoch for epoch in self.run["history"]):
            told += " The development loss is the cross-entropy of the labels alone; either may be the higher one."
            if self.several:
                told += " Scores are at the thresholds that suit the development rows of that epoch best."
        return told

    @property
    def sizes(self) -> str:
        """How many rows a label has, and how many tokens a text."""
        assert self.data is not None  # noqa: S101

        def said(sizes: Mapping[str, Any], noun: str) -> str:
            median = f" ({sizes['median']:g} in the middle)" if sizes["least"] < sizes["most"] else ""
            return between(sizes["least"], sizes["most"], noun) + median

        labels, texts = self.data["rows_of_a_label"], self.data["tokens_of_a_text"]
        return f"A label has {said(labels, 'row')}, a text {said(texts, 'token')}."

    @property
    def base(self) -> str:
        """What the model was made of: a name on the hub, or that of a folder, without the places it lay in."""
        name = self.manifest.base_model
        return PurePath(name).name if PurePath(name).is_absolute() or name.startswith(".") else name

    @property
    def gives(self) -> str:
        """What a text is given."""
        number = "any number" if self.several else "one"
        or_none = f", or none where it is less sure than {probability(self._least)}" if self._least else ""
        return f"{number} of {counted(len(self.manifest.labels), 'label')}{or_none}."

    @property
    def right(self) -> tuple[str, str]:
        """What stands before and after the share of the rows that are right."""
        assert self.best is not None  # noqa: S101
        low, high = map(percent, self.best.intervals.accuracy)
        after = f"({self.main}; 95 % interval {low} to {high})."
        rows = counted(len(self.best.rows), "row")
        if self.main != CROSSED:
            subject = "All labels of a text are" if self.several else "Its best label is" if self._least else "It is"
            return f"{subject} right for", f"of {rows} {after}"
        models = f"models like it, each of which learnt without one of {self._folds} parts of the rows,"
        if self.several:
            before = f"All labels of a text are right, by {models} for"
        elif self._least:
            before = f"The best label of {models} is right for"
        else:
            before = f"M{models[1:]} are right for"
        return before, f"of {rows} that they had not learnt from {after}"

    @property
    def abstained(self) -> Answered | None:
        """What the model answers of the main rows, where it may give no label; None where it answers all."""
        return self.best.answered([self._least])[0] if self.best and self._least else None

    @property
    def answers(self) -> str:
        """How often an abstaining model answers, and how often that is right; empty of one that does not abstain."""
        if not (found := self.abstained):
            return ""
        wanted = (self.run or {}).get("config", {}).get("min_precision")
        asked = f", where {percent(wanted)} were asked for" if wanted else ""
        if found.precision is None:
            return f"It is sure enough of none of them to give a label{asked}."
        right = percent(found.precision)
        return f"It gives a label to {percent(found.coverage)} of them, and is right for {right} of those{asked}."

    @property
    def trivial(self) -> tuple[str, float]:
        """What is right for most of the main rows if it is given to all, and the share of them."""
        assert self.best is not None  # noqa: S101
        sets = Counter(tuple(sorted(row.labels)) for row in self.best.rows)
        labels, rows = sets.most_common(1)[0]
        return joined(labels) if labels else "no label", rows / len(self.best.rows)

    @property
    def caveat(self) -> str:
        """Why the figures of the main rows are too good, or of other models; empty where nothing was chosen on them."""
        if self.main == "dev":
            return f"Those rows chose {self.decided('dev')}, so their figures flatter.{self._before_final('model')}"
        if self.main == CROSSED:
            return f"Those rows chose {self.decided(CROSSED)}{', so their figures flatter' if self.ways else ''}."
        return ""

    @property
    def judged(self) -> str:
        """What the figures of all sets of rows are of."""
        elsewhere = [name for name in self.measured if name == CROSSED or (name == "dev" and self.final)]
        said = []
        if len(elsewhere) < len(self.measured):
            but = f", except the {joined(elsewhere)} rows" if elsewhere else ""
            said.append(f"Measured on the fp32 graph{but}.")
        if CROSSED in self.measured:
            flatter = ", so their figures flatter" if self.ways else ""
            said.append(
                "Of the cross-validation rows, each is judged by a model that had not learnt from it, and that learnt "
                f"from fewer rows than this one did; together they chose {self.decided(CROSSED)}{flatter}."
            )
        if "dev" in self.measured:
            said.append(
                f"The dev rows chose {self.decided('dev')}, so their figures flatter."
                f"{self._before_final('PyTorch checkpoint')}"
            )
        return " ".join(said)

    @property
    def compared(self) -> str:
        """On which rows that the model had learnt int8 was compared; empty where it was on others."""
        if "test" in self.measured or not ((self.final and "dev" in self.measured) or CROSSED in self.measured):
            return ""
        rows = "the development rows," if "dev" in self.measured else "rows"
        return (
            f"They were compared on {rows} which the model had learnt by then: on others int8 may change a little more."
        )

    def decided(self, name: str) -> str:
        """Return what the development or the cross-validation rows decided."""
        trials = (self.run or {}).get("search", {}).get("trials", ())
        what = [
            f"the settings, the best of {counted(len(trials), 'trial')}" if trials else "",
            f"how to learn (the best of {counted(len(self.ways), 'way')})" if self.ways else "",
            "the epoch" if name == "dev" and self.chooses else "",
            "the calibration",
        ]
        return joined(list(filter(None, what)))

    @property
    def _least(self) -> float | None:
        """The probability below which a text is given no label, of a model that gives one."""
        return self.manifest.thresholds[0] if self.manifest.thresholds and not self.several else None

    @property
    def _folds(self) -> str:
        run = self.run or {}
        return str((run.get("crossed") or run.get("cross_validation") or {}).get("folds", "several"))

    def _before_final(self, what: str) -> str:
        return f" They are of the {what} before it learnt from these rows too." if self.final else ""
