"""
How fast fine-tuning is: Bertrand's recipe beside a plain Transformers Trainer, on the same rows, in one run.

The plain one is what a tutorial does: the stock classifier on the first token, every sentence padded to 128 tokens,
float32, AdamW at 1e-4. Both pass over the same rows as often, in batches of the same size, and are measured on the same
test rows.
Run alone on the machine: `python benchmarks/training.py [--data TRAIN.csv --test TEST.csv --rows 2000 --epochs 3]`.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # `training` is the package, not the script

import torch
import transformers

from bertrand import example
from training.base import fetch
from training.checkpoint import Checkpoint, load_tokenizer
from training.data import label_names, read_rows, split
from training.metrics import score
from training.settings import TrainConfig
from training.soft_labels import soft_labels
from training.train import fine_tune

if TYPE_CHECKING:
    from collections.abc import Sequence

    from training.data import Row

TOKENS = 128  # that the plain trainer pads to
SPARED = 0.02  # of the rows, for Bertrand to choose the epoch by


def main() -> None:
    """Train twice and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=example.TRAIN, help="rows to learn from (default: bundled ones)")
    parser.add_argument("--test", type=Path, default=example.TEST, help="rows to measure on (default: bundled ones)")
    parser.add_argument("--rows", type=int, default=2000, help="rows to learn from, at most (default: %(default)s)")
    parser.add_argument("--epochs", type=int, default=3, help="passes over them (default: %(default)s)")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    options = parser.parse_args()

    transformers.logging.set_verbosity_error()
    rows, test = read_rows(options.data), read_rows(options.test)
    if len(rows) > options.rows:
        _, rows = split(rows, share=options.rows / len(rows), seed=0)
    train, dev = split(rows, share=SPARED, seed=0)
    config = TrainConfig(epochs=options.epochs)
    print(f"{len(train)} rows, {options.epochs} epochs, {torch.get_num_threads()} threads", flush=True)
    outcomes: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory(prefix="bertrand-bench-") as folder:
        for name, run in {"plain": _plain, "bertrand": _bertrand}.items():
            started = time.perf_counter()
            made = run(config, train, dev, Path(folder) / name)
            seconds = time.perf_counter() - started
            accuracy = score(Checkpoint.load(str(made)), test).accuracy
            outcomes[name] = {
                "seconds": seconds,
                "rows_per_second": len(train) * options.epochs / seconds,
                "accuracy": accuracy,
            }
    ratio = outcomes["bertrand"]["rows_per_second"] / outcomes["plain"]["rows_per_second"]
    print("| trainer | seconds | rows a second | test accuracy |\n| --- | --- | --- | --- |")
    for name, one in outcomes.items():
        print(f"| {name} | {one['seconds']:.0f} | {one['rows_per_second']:.1f} | {one['accuracy']:.4f} |")
    print(f"\nrows a second: {ratio:.2f} times the plain trainer's")
    if options.json:
        options.json.write_text(json.dumps({"ratio": ratio, "trainers": outcomes}, indent=2) + "\n", encoding="utf-8")


def _bertrand(config: TrainConfig, train: Sequence[Row], dev: Sequence[Row], work: Path) -> Path:
    """Loading, starting, the probe behind the soft labels and scoring the development rows included."""
    return fine_tune(config, train, dev, work, soft=soft_labels(config, train))


def _plain(config: TrainConfig, train: Sequence[Row], dev: Sequence[Row], work: Path) -> Path:  # noqa: ARG001
    labels = label_names(train)
    tokenizer = load_tokenizer(config.base)
    transformers.set_seed(config.seed)
    model = fetch(
        transformers.AutoModelForSequenceClassification.from_pretrained,
        config.base,
        id2label=dict(enumerate(labels)),
        label2id={label: i for i, label in enumerate(labels)},
    )
    encoded = tokenizer([row.text for row in train], truncation=True, padding="max_length", max_length=TOKENS)
    data: list[dict[str, Any]] = [
        {name: encoded[name][i] for name in ("input_ids", "attention_mask")} | {"labels": labels.index(row.labels[0])}
        for i, row in enumerate(train)
    ]
    trainer = transformers.Trainer(
        model=model,
        args=transformers.TrainingArguments(
            output_dir=str(work),
            num_train_epochs=config.epochs,
            learning_rate=1e-4,
            per_device_train_batch_size=config.batch_size,
            use_cpu=True,
            seed=config.seed,
            save_strategy="no",
            disable_tqdm=True,
            report_to=[],
        ),
        train_dataset=data,
    )
    trainer.train()
    trainer.save_model(str(work))
    tokenizer.model_max_length = TOKENS
    tokenizer.save_pretrained(str(work))
    return work


if __name__ == "__main__":
    main()
