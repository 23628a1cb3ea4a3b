"""The model card, README.md, in the hub's format."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import yaml

from inference.artifact import CHECKPOINT
from training.base import hub_id
from training.report import final, headline, speed, templates

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
    measured = {name: one for name, one in measured.items() if len(one.rows)}
    front = yaml.safe_dump(_front(manifest, measured, run), allow_unicode=True, sort_keys=False, width=1000)
    name = headline(measured)
    return templates.get_template("card.md").render(
        front=front,
        manifest=manifest,
        measured=measured,
        main=name,
        best=measured[name] if name else None,
        gates=gates,
        speed=speed(gates),
        run=run,
        final=final(run),
        data=run.get("data") if run else None,
        custom_code=CUSTOM_CODE in manifest.sha256,
    )


def _front(manifest: Manifest, measured: Mapping[str, Measured], run: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return what the hub reads: what the model is for, what it was made of, and what was measured."""
    front: dict[str, Any] = {"pipeline_tag": "text-classification", "library_name": "transformers"}
    base = run.get("hub_id") if run else hub_id(manifest.base_model)
    if base:
        front["base_model"] = base
    front["tags"] = ["onnx", "bertrand", *(["custom_code"] if CUSTOM_CODE in manifest.sha256 else [])]
    if measured:
        results = [_result(manifest, name, one) for name, one in measured.items()]
        front["model-index"] = [{"name": manifest.name, "results": results}]
    return front


def _result(manifest: Manifest, name: str, measured: Measured) -> dict[str, Any]:
    metrics = measured.metrics
    return {
        "task": {"type": "text-classification", "name": "Text classification"},
        "dataset": {"type": manifest.name, "name": f"{manifest.name}, {name} rows", "split": name},
        "metrics": [
            {"type": "accuracy", "name": "Accuracy", "value": round(metrics.accuracy, 4)},
            {"type": "f1", "name": "Macro-F1", "value": round(metrics.macro_f1, 4), "args": {"average": "macro"}},
            {"type": "ece", "name": "Expected calibration error", "value": round(metrics.ece, 4)},
        ],
    }


def _code(text: object) -> str:
    """Return Markdown that shows a text as it is, whatever it holds."""
    line = " ".join(str(text).split())
    fence = "`" * (1 + max(map(len, re.findall("`+", line)), default=0))
    padding = " " if line.startswith("`") or line.endswith("`") else ""
    return f"{fence}{padding}{line}{padding}{fence}"


def _prose(text: object) -> str:
    """Return Markdown in which nothing of a text is a mark."""
    return re.sub(r"([\\`*_\[\]<>|#&~$])", r"\\\1", " ".join(str(text).split()))


templates.filters |= {"code": _code, "prose": _prose}
