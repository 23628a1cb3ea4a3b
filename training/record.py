"""The record of a run, which stays beside the checkpoint that it made."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

RUN_FILE = "train.json"  # settings, data and course of a run; stays beside the checkpoint it made


def write_record(folder: Path, record: dict[str, Any], *, name: str = RUN_FILE) -> None:
    """Write the record of a run, the last file of a checkpoint: where it is, the run had ended."""
    staging = folder / f".{name}"
    staging.write_text(json.dumps(record, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
    staging.replace(folder / name)  # never there in part


def note(checkpoint: Path, **values: Any) -> None:
    """Add to the record of the run that made a checkpoint."""
    write_record(checkpoint, json.loads((checkpoint / RUN_FILE).read_bytes()) | values)


def read_run(checkpoint: str | Path) -> dict[str, Any] | None:
    """Return the record that a checkpoint carries of the run that made it; None where it has none of ours."""
    try:
        record = json.loads(Path(checkpoint, RUN_FILE).read_bytes())
    except (OSError, ValueError):
        return None
    ours = {"config", "train_rows", "dev_rows", "history", "chosen_epoch", "precision", "versions"}
    return record if isinstance(record, dict) and ours <= record.keys() else None
