"""A checkpoint to a model folder: exported, proved, measured, described, and only then visible."""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from inference import artifact
from inference.classifier import Classifier, sigmoid, softmax
from inference.encoder import Encoded
from inference.reference import ABSTAINED, Reference
from training import card, gates, report
from training.calibration import Calibration, Unseen, fit
from training.data import Row
from training.errors import GateError
from training.export import export_graphs
from training.metrics import Measured, measure, targets
from training.record import RUN_FILE
from training.wording import probability

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from training.checkpoint import Checkpoint

VERSION_SUFFIX = re.compile(r"(?<=[^-])-v?\d[\d.-]*$")  # of a folder: tickets-2 and tickets-2026-01-31 are both tickets


def build(
    checkpoint: Checkpoint,
    out: Path,
    *,
    base_model: str,
    probe_texts: Sequence[str],
    labelled: Mapping[str, Sequence[Row]],
    held_out: Mapping[str, Unseen] | None = None,
    min_precision: float | None = None,
    run: Mapping[str, Any] | None = None,
) -> artifact.Manifest:
    """
    Make the model folder `out` of a checkpoint.

    Args:
        checkpoint: A fine-tuned sequence classifier.
        out: Becomes the model folder; a model that is there is replaced in one step.
        base_model: What the checkpoint was fine-tuned from, for the record.
        probe_texts: Real rows for the gates.
        labelled: Rows to measure the fp32 graph on, and what int8 changes, by name: `dev`, `test`.
            What it says of the rows `dev` calibrates it.
        held_out: What models that had not learnt from rows say of them, by name: `dev` or `cross-validation`, where
            the checkpoint has learnt from these. It is told and calibrates in place of what the graph says; without
            any such rows the checkpoint's calibration stays.
        min_precision: Share of the answers that must be right, on those rows: texts that are less sure get no label.
        run: The record of the run that made the checkpoint, if it was ours.

    An int8 graph that fails a gate is left out, and said to be; the model is as good without it.

    Raises:
        GateError: the fp32 graph is not faithful to the checkpoint; nothing is written.
        ArtifactError: `out` is something other than a model folder.
    """
    with artifact.staged(out) as staging:
        _say("exporting to ONNX")
        fused = _export(checkpoint, staging, run)

        values: dict[str, Any] = {
            "name": model_name(out),
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "base_model": base_model,
            "labels": checkpoint.labels,
            "problem_type": checkpoint.problem_type,
            "max_tokens": checkpoint.max_tokens,
            "precisions": ("fp32", "int8"),
            "default_precision": "fp32",
        }
        # Loaded as any reader will load it: what is proved is the folder, not an object in memory.
        calibration = checkpoint.calibration
        values |= _in_manifest(checkpoint, calibration)
        artifact.write_manifest(staging, **values)
        classifier = Classifier.load(staging, precision="fp32")

        _say("proving it faithful")
        outcomes = gates.check(checkpoint, classifier, probe_texts)
        if failed := [gate for gate in outcomes if not gate.passed]:
            raise GateError("; ".join(f"{out}: not written, gate {g.name} failed: {g.summary()}" for g in failed))
        asked = dict(held_out or {})
        asked |= {name: _ask(classifier, named) for name, named in labelled.items() if named and name not in asked}
        if unseen := asked.get("dev") or asked.get("cross-validation"):
            calibration = _calibrate(checkpoint, unseen, min_precision)
            values |= _in_manifest(checkpoint, calibration)
            artifact.write_manifest(staging, **values)
            classifier = Classifier.load(staging, precision="fp32")
        calibration.write(staging / artifact.CHECKPOINT)
        # Of rows that were learnt a model is surer, and no change of precision tells: they prove least.
        unlearnt = [row for name, named in labelled.items() if name not in (held_out or {}) for row in named]
        rows = unlearnt or [row for named in labelled.values() for row in named]
        int8_outcomes, offered = _judge_int8(
            classifier, staging, rows or [Row(text, ()) for text in probe_texts], labelled=bool(rows)
        )
        values |= offered
        outcomes += int8_outcomes

        _say("measuring")
        measured = {name: _measured(classifier, unseen) for name, unseen in asked.items()}
        values["gates"] = {gate.name: gate.to_json() for gate in outcomes} | {"fusion": {"passed": True} | fused}
        values["metrics"] = {
            name: _summary(one) | asdict(_reference(classifier, asked[name])) for name, one in measured.items()
        }

        manifest = artifact.write_manifest(staging, **values)
        (staging / artifact.REPORT).write_text(report.page(manifest, measured, outcomes, run), encoding="utf-8")
        (staging / artifact.CARD).write_text(card.card(manifest, measured, outcomes, run), encoding="utf-8")
        return artifact.write_manifest(staging, **values)


def model_name(folder: Path) -> str:
    """Return what a model is called that is written to `folder`: its versions have one name (models/README.md)."""
    return VERSION_SUFFIX.sub("", folder.name)


def _export(checkpoint: Checkpoint, folder: Path, run: Mapping[str, Any] | None) -> dict[str, int]:
    """Write graphs, tokenizer, checkpoint and the record of its run; return how often each operator was fused."""
    graphs = {precision: folder / artifact.GRAPHS[precision] for precision in ("fp32", "int8")}
    fused = export_graphs(checkpoint, **graphs)
    checkpoint.save_tokenizer(folder / artifact.TOKENIZER)
    _save_checkpoint(checkpoint, folder / artifact.CHECKPOINT)
    if run:
        record = json.dumps(run, indent=2, ensure_ascii=False) + "\n"
        (folder / artifact.CHECKPOINT / RUN_FILE).write_text(record, encoding="utf-8")
    return fused


def _judge_int8(
    fp32: Classifier, folder: Path, rows: Sequence[Row], *, labelled: bool
) -> tuple[list[gates.Gate], dict[str, Any]]:
    """Return what the int8 graph proved, and which precisions are offered; a graph that failed is removed."""
    int8 = Classifier.load(folder, precision="int8")
    outcomes = gates.check_int8(fp32, int8, rows, labelled=labelled)
    if failed := [gate for gate in outcomes if not gate.passed]:
        for gate in failed:
            _say(f"int8 is not offered, gate {gate.name} failed: {gate.summary()}")
        (folder / artifact.GRAPHS["int8"]).unlink()
        return outcomes, {"precisions": ("fp32",)}
    speed = gates.speed(fp32, int8, rows)
    speedup = speed.measured["int8_speedup"]
    _say(f"int8 passed its gates, {speedup:.1f} times as fast as fp32")
    return [*outcomes, speed], {"default_precision": "int8" if speedup > 1 else "fp32"}


def _calibrate(checkpoint: Checkpoint, unseen: Unseen, min_precision: float | None) -> Calibration:
    calibration = fit(
        unseen.logits,
        targets(unseen.rows, checkpoint.labels),
        multi_label=checkpoint.problem_type == "multi_label",
        min_precision=min_precision,
    )
    if abstention := calibration.abstention:
        threshold = probability(abstention.threshold, 3)
        _say(
            f"gives a label from a probability of {threshold} on: {abstention.precision:.1%} of the "
            f"answers are right then, and {abstention.coverage:.1%} of {len(unseen.rows)} unseen rows get one"
        )
    elif min_precision:
        _say(
            f"warning: at no probability are {min_precision:.1%} of the answers on {len(unseen.rows)} unseen rows "
            "right, and to be expected to be, so every text gets a label; more rows, or a lower --min-precision, may "
            "do"
        )
    return calibration


def _in_manifest(checkpoint: Checkpoint, calibration: Calibration) -> dict[str, Any]:
    several = (0.5,) * len(checkpoint.labels) if checkpoint.problem_type == "multi_label" else None
    return {"temperature": calibration.temperature, "thresholds": calibration.thresholds or several}


def _save_checkpoint(checkpoint: Checkpoint, folder: Path) -> None:
    """Save in Transformers' format; the tokenizer cuts where serving cuts."""
    checkpoint.model.save_pretrained(folder)
    checkpoint.tokenizer.model_max_length = checkpoint.max_tokens
    checkpoint.tokenizer.save_pretrained(folder)


def _ask(classifier: Classifier, rows: Sequence[Row]) -> Unseen:
    return Unseen(rows, classifier.logits([row.text for row in rows]))


def _measured(classifier: Classifier, unseen: Unseen) -> Measured:
    manifest = classifier.manifest
    multi_label = manifest.problem_type == "multi_label"
    probabilities = classifier.probabilities(unseen.logits)
    return Measured(
        unseen.rows,
        probabilities,
        sigmoid(unseen.logits) if multi_label else softmax(unseen.logits),
        measure(
            probabilities,
            targets(unseen.rows, manifest.labels),
            manifest.labels,
            multi_label=multi_label,
            thresholds=manifest.thresholds,
        ),
        manifest.thresholds,
    )


def _summary(measured: Measured) -> dict[str, Any]:
    metrics = measured.metrics
    return {
        "rows": metrics.rows,
        "accuracy": metrics.accuracy,
        "accuracy_interval": list(measured.intervals.accuracy),
        "macro_f1": metrics.macro_f1,
        "ece": metrics.ece,
        "ece_before": measured.ece_before,
    }


def _reference(classifier: Classifier, unseen: Unseen) -> Reference:
    """Return what the model says of the rows, counted as the service counts what it says of traffic."""
    rows = len(unseen.rows)
    probabilities = classifier.probabilities(unseen.logits)
    best = {i: int(given[0]) for i, given in enumerate(classifier.choose(probabilities)) if len(given)}
    counts = Counter(classifier.labels[place] for place in best.values())
    counts[ABSTAINED] += rows - len(best)
    confidences = probabilities[list(best.keys()), list(best.values())]
    items = classifier.encoder.encode([row.text for row in unseen.rows], offsets=False)
    truncated = sum(isinstance(item, Encoded) and item.truncated for item in items)
    return Reference(
        predicted={label: counts[label] / rows for label in (*classifier.labels, ABSTAINED)},
        confidence=float(confidences.mean(dtype=np.float64)) if best else None,
        truncated=truncated / rows,
    )


def _say(what: str) -> None:
    print(what, file=sys.stderr)
