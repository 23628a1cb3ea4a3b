"""A few rows of every label, drawn from many: for experiments with few examples, the same ones for a seed."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from training.copies import fold
from training.data import label_names

if TYPE_CHECKING:
    from collections.abc import Sequence

    from training.data import Row


@dataclass(frozen=True)
class Sample:
    """The rows that were drawn and those that were not, each in the order of the file."""

    drawn: list[Row]
    rest: list[Row]  # without copies of what was drawn
    copies: int  # rows in neither, because they say what a drawn one says
    short: tuple[str, ...]  # labels with fewer rows than were asked for, all of which were drawn

    @property
    def counts(self) -> dict[str, int]:
        """Return how many drawn rows each label has, in alphabetical order."""
        counts = Counter(label for row in self.drawn for label in row.labels)
        return {label: counts[label] for label in sorted({*counts, *self.short})}

    def to_json(self) -> dict[str, Any]:
        """Return the figures as JSON values."""
        return {
            "rows": len(self.drawn),
            "label_counts": self.counts,
            "short": list(self.short),
            "rest_rows": len(self.rest),
            "copies": self.copies,
        }


def draw(rows: Sequence[Row], per_label: int, *, seed: int) -> Sample:
    """
    Draw `per_label` rows of every label, and all rows of a label that has fewer.

    A text is drawn once: rows that say the same but for case and punctuation are copies, of which the first counts, and
    copies of drawn rows are not in the rest, so that a model of the drawn rows can be measured there. With one label a
    row, more rows with the same seed are the fewer ones and others.

    With several labels a row, the labels take their turns, the rarest first, and each draws, in random order, only as
    many rows as it lacks after those that are drawn already. So every label that can has `per_label` rows, frequent
    ones may have more, and rows without a label are not drawn.

    Args:
        rows: Labelled sentences.
        per_label: At least 1.
        seed: Same rows, number and seed: same sample.
    """
    keys = [fold(row.text) for row in rows]
    first = {key: i for i, key in reversed(list(enumerate(keys)))}
    order = sorted(first.values())
    random.Random(seed).shuffle(order)
    having: dict[str, list[int]] = defaultdict(list)
    for i in order:
        for label in set(rows[i].labels):
            having[label].append(i)
    drawn: set[int] = set()
    held: Counter[str] = Counter()
    for label in sorted(having, key=lambda name: (len(having[name]), name)):
        for i in having[label]:
            if held[label] >= per_label:
                break
            if i not in drawn:
                drawn.add(i)
                held.update(rows[i].labels)
    known = {keys[i] for i in drawn}
    rest = [row for row, key in zip(rows, keys, strict=True) if key not in known]
    return Sample(
        drawn=[rows[i] for i in sorted(drawn)],
        rest=rest,
        copies=len(rows) - len(rest) - len(drawn),
        short=tuple(label for label in label_names(rows) if len(having[label]) < per_label),
    )
