"""Few labelled sentences: every row teaches, and cross-validation chooses how and says how well."""

from __future__ import annotations

import re
import sys
import unicodedata
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from training.calibration import Unseen, fit_temperature
from training.compare import macro_f1_change
from training.copies import fold
from training.crossed import Folds
from training.data import Row, label_names
from training.metrics import accuracy_lead, decide, macro_f1, standard_error
from training.record import note
from training.settings import FOLDS
from training.train import fine_tune

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from training.settings import TrainConfig

CAMEL_CASE = re.compile(r"(?<=[a-z])(?=[A-Z])")
PASSES = 7_700  # sentences that are passed in all, but 10 to 30 times each


def fine_tune_few(config: TrainConfig, rows: Sequence[Row], work: Path, *, resume: bool = False) -> tuple[Path, Unseen]:
    """
    Fine-tune on all rows, in the way that does better on rows it has not seen.

    Two questions are asked of cross-validation: whether the name of a label, as one more text of it, teaches what it
    means, and whether fine-tuning from a fitted classifier does better than the encoder as it was pretrained with that
    classifier. The share that a development set would take is worth more to learn from, so that the model is calibrated
    on what the models of the folds say, each of the rows that it was not shown.

    Args:
        config: The settings of the run.
        rows: One label a row; more texts than labels.
        work: Folder of the run.
        resume: Go on with what is in `work`.

    Returns:
        The folder of the checkpoint, and what cross-validation says of the rows.
    """
    epochs = config.epochs or min(30, max(10, PASSES // len(rows)))
    # Starting from a fitted classifier, a second pass over each row was no help (see docs/training.md).
    tuned = replace(config, head_start="fitted", epochs=epochs, consistency=config.consistency or 0.0, final_epochs=0)
    frozen = replace(tuned, freeze="encoder")
    folds = Folds(rows, number=config.folds or FOLDS, seed=config.seed)
    ways = [_judge(_Way("frozen", frozen), folds, work, resume=resume)]
    if names := name_rows(label_names(rows)):
        ways.append(_judge(_Way("frozen-named", frozen, names), folds, work, resume=resume))
    best = max(ways, key=lambda way: way.score(config.selection))
    lead = {}
    if config.freeze != "encoder":
        way = _Way("tuned-named" if best.way.names else "tuned", tuned, best.way.names)
        ways.append(_judge(way, folds, work, resume=resume))
        # Fine-tuning gains more from the rows that a fold withheld: only what is more than chance speaks against it.
        ahead, error = _lead(ways[-1], best, config.selection)
        lead = {"lead": {"over_tuned": ahead, "standard_error": error, "of": best.way.name}}
        best = best if ahead > error else ways[-1]
    checkpoint = fine_tune(best.way.config, [*rows, *best.way.names], [], work / "all", resume=resume)
    told = {
        way.way.name: {"accuracy": way.accuracy, "macro_f1": way.score("macro_f1"), "temperature": way.temperature}
        for way in ways
    }
    chosen = {"chosen": best.way.name, "names": len(best.way.names)}  # which are among the rows of the record
    note(checkpoint, cross_validation=folds.size | {"ways": told} | lead | chosen)
    return checkpoint, Unseen(folds.held_out, best.logits)


def name_rows(labels: Sequence[str]) -> list[Row]:
    """
    Return the name of each label as a text of it: `lost_card`, `lost-card` and `LostCard` all say "lost card".

    Names that signs alone tell apart (C and C#) keep them; of those that say the same even so, none is a text.
    """
    plain = [_words(label) for label in labels]
    counts = Counter(map(fold, plain))
    texts = [
        name if counts[fold(name)] == 1 else label.replace("_", " ") for name, label in zip(plain, labels, strict=True)
    ]
    counts = Counter(map(fold, texts))
    return [Row(text, (label,)) for text, label in zip(texts, labels, strict=True) if text and counts[fold(text)] == 1]


def _words(label: str) -> str:
    """Return a label without its signs, words apart."""
    apart = CAMEL_CASE.sub(" ", unicodedata.normalize("NFC", label))
    # Marks are parts of letters, as vowels are in Devanagari.
    kept = (sign if sign.isalnum() or unicodedata.category(sign).startswith("M") else " " for sign in apart)
    return " ".join("".join(kept).split())


@dataclass(frozen=True)
class _Way:
    """A way to learn from few rows."""

    name: str
    config: TrainConfig
    names: Sequence[Row] = ()  # learnt too


@dataclass(frozen=True)
class _Judged:
    """A way, and what its models say of the rows that they had not learnt from."""

    way: _Way
    logits: NDArray[np.float32]  # (rows of `Folds.held_out`, labels)
    given: NDArray[np.bool_]  # the label that each of these rows is given, shape of the logits
    truth: NDArray[np.bool_]  # the label that it has
    temperature: float

    @property
    def right(self) -> NDArray[np.bool_]:
        """Which rows are given their own label."""
        return np.asarray((self.given == self.truth).all(axis=1))

    @property
    def accuracy(self) -> float:
        """Share of the rows that are right."""
        return float(self.right.mean())

    def score(self, name: str) -> float:
        """Return the accuracy or the macro-F1, as `TrainConfig.selection` names them."""
        return self.accuracy if name == "accuracy" else macro_f1(self.given, self.truth)


def _lead(before: _Judged, after: _Judged, score: str) -> tuple[float, float]:
    """Return the score of the other minus that of the one, and its standard error."""
    if score == "accuracy":
        return accuracy_lead(before.right, after.right)
    change = macro_f1_change(before.given, after.given, before.truth)
    return change.value, standard_error((change.low, change.high))


def _judge(way: _Way, folds: Folds, work: Path, *, resume: bool) -> _Judged:
    """Learn from the rows outside each fold, and ask about those in it."""

    def learn(number: int) -> Path:
        learnt, _ = folds.parts[number]
        return fine_tune(way.config, [*learnt, *way.names], [], work / f"{way.name}-{number}", resume=resume)

    logits = folds.ask(learn)
    judged = _Judged(way, logits, decide(logits), folds.truth, fit_temperature(logits, folds.truth))
    print(
        f"cross-validation, {way.name}: accuracy {judged.accuracy:.4f}, macro-F1 {judged.score('macro_f1'):.4f} "
        f"over {len(folds.held_out)} rows",
        file=sys.stderr,
    )
    return judged
