"""The model card, README.md, in the hub's format."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import yaml

from inference.artifact import CHECKPOINT
from training.base import hub_id
from training.facts import Facts
from training.rendering import templates

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from inference.artifact import Manifest
    from training.gates import Gate
    from training.metrics import Measured

CUSTOM_CODE = f"{CHECKPOINT}/mean_pooling.py"  # travels with the checkpoints that Transformers needs it for


def card(
    manifest: Manifest, measured: Mapping[str, Measured], gates: Sequence[Gate], run: Mapping[str, Any] | None
) -> str:
    """Return the model card; the arguments are those of `report.page`."""
    facts = Facts.of(manifest, measured, gates, run)
    front = yaml.safe_dump(_front(facts), allow_unicode=True, sort_keys=False, width=1000)
    return templates.get_template("card.md").render(
        front=front,
        facts=facts,
        manifest=manifest,
        gates=gates,
        run=run,
        best=facts.best,
        custom_code=CUSTOM_CODE in manifest.sha256,
    )


def _front(facts: Facts) -> dict[str, Any]:
    """Return what the hub reads: what the model is for, what it was made of, and what was measured."""
    manifest = facts.manifest
    front: dict[str, Any] = {"pipeline_tag": "text-classification", "library_name": "transformers"}
    base = facts.run.get("hub_id") if facts.run else hub_id(manifest.base_model)
    if base:
        front["base_model"] = base
    front["tags"] = ["onnx", "bertrand", *(["custom_code"] if CUSTOM_CODE in manifest.sha256 else [])]
    if facts.measured:
        results = [_result(facts, name) for name in facts.measured]
        front["model-index"] = [{"name": manifest.name, "results": results}]
    return front


def _result(facts: Facts, name: str) -> dict[str, Any]:
    metrics, model = facts.measured[name].metrics, facts.manifest.name
    accuracy = "Accuracy, all labels of a text right" if facts.several else "Accuracy"
    return {
        "task": {"type": "text-classification", "name": "Text classification"},
        # The rows are on no hub: a name there might be somebody else's.
        "dataset": {"type": "unpublished", "name": f"{model}, {name} rows", "split": name},
        "metrics": [
            {"type": "accuracy", "name": accuracy, "value": round(metrics.accuracy, 4)},
            {"type": "f1", "name": "Macro-F1", "value": round(metrics.macro_f1, 4), "args": {"average": "macro"}},
            {"type": "ece", "name": "Expected calibration error", "value": round(metrics.ece, 4)},
        ],
    }
