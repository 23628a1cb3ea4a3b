"""The fine-tuning run: rows and a base model to the best checkpoint, readable from top to bottom."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import sys
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import transformers
from tqdm import tqdm

from inference.classifier import sigmoid, softmax
from training import mean_pooling
from training.base import family, fetch, load_config
from training.checkpoint import load_tokenizer, longest_input
from training.data import label_names
from training.errors import DataError
from training.metrics import measure, targets

if TYPE_CHECKING:
    from collections.abc import Sequence

    from training.data import Row
    from training.settings import TrainConfig

# What a configuration says of a head, of where it came from or of its type: none of it is the new model's.
HEAD_SETTINGS = {
    "_name_or_path",
    "architectures",
    "auto_map",
    "id2label",
    "label2id",
    "model_type",
    "num_labels",
    "problem_type",
    "transformers_version",
}
RUN_FILE = "train.json"  # settings, data and course of a run; stays beside the checkpoint it made


def fine_tune(
    config: TrainConfig, train: Sequence[Row], dev: Sequence[Row], work: Path, *, resume: bool = False
) -> Path:
    """
    Fine-tune a base model and return the folder of the checkpoint that was best on the development rows.

    Args:
        config: The settings of the run.
        train: Rows to learn from.
        dev: Rows to choose the best epoch by.
        work: Folder of the run; keeps a state for every epoch, so that a killed run can go on.
        resume: Go on from the last state in `work`; start anew where there is none.

    Raises:
        BaseModelError: the base model cannot be had or is of another family.
        DataError: `resume`, and the state in `work` is of other settings or other data.
    """
    labels = label_names(train)
    base = load_config(config.base)  # before an earlier run is cleared away: the name may be mistyped
    tokenizer = load_tokenizer(config.base)

    run = {"config": asdict(config), "train_rows": _fingerprint(train), "dev_rows": _fingerprint(dev)}
    state = _open_work(work, run, resume=resume)
    best = work / "best"
    if state and (best / RUN_FILE).is_file():  # written last: training had ended
        return best

    transformers.set_seed(config.seed)
    tokenizer.model_max_length = min(config.max_tokens, longest_input(base))
    model = _model(config, base, labels)

    trainer = transformers.Trainer(
        model=model,
        args=_arguments(config, work, config.max_epochs(len(train))),
        train_dataset=_tokenized(train, labels, tokenizer, multi_label=config.multi_label),
        eval_dataset=_tokenized(dev, labels, tokenizer, multi_label=config.multi_label),
        data_collator=transformers.DataCollatorWithPadding(tokenizer),
        compute_metrics=_scorer(labels, multi_label=config.multi_label),
        compute_loss_func=_weighted_loss(train, labels, config) if config.class_weights == "balanced" else None,
        optimizers=(_optimizer(model, config), None),
        callbacks=[transformers.EarlyStoppingCallback(config.patience), _Progress()],
    )
    trainer.remove_callback(transformers.PrinterCallback)
    with warnings.catch_warnings():
        # Some file systems order states by number, which is the order they were made in.
        warnings.filterwarnings("ignore", message="mtime may not be reliable")
        trainer.train(resume_from_checkpoint=str(state) if state else None)

    trainer.save_model(str(best))
    tokenizer.save_pretrained(str(best))
    (best / "training_args.bin").unlink(missing_ok=True)  # a pickle, and all of it is in train.json
    history = _history(trainer.state.log_history)
    versions = {"torch": torch.__version__, "transformers": transformers.__version__}
    record = run | {"history": history, "precision": "bfloat16" if has_bfloat16() else "float32", "versions": versions}
    (best / RUN_FILE).write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return best


def read_run(checkpoint: str | Path) -> dict[str, Any] | None:
    """Return the record that a checkpoint carries of the run that made it; None where it has none of ours."""
    try:
        record = json.loads(Path(checkpoint, RUN_FILE).read_bytes())
    except (OSError, ValueError):
        return None
    ours = {"config", "train_rows", "dev_rows", "history", "precision", "versions"}
    return record if isinstance(record, dict) and ours <= record.keys() else None


def has_bfloat16() -> bool:
    """Say whether this CPU multiplies bfloat16 matrices in hardware; emulated, they are slower than float32."""
    capabilities = torch.backends.cpu.get_cpu_capability() if hasattr(torch.backends, "cpu") else ""
    return "AVX512" in capabilities and bool(
        torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    )


def _open_work(work: Path, run: dict[str, Any], *, resume: bool) -> Path | None:
    """Prepare the folder of a run and return the state to go on from, if there is one."""
    record = work / RUN_FILE
    if resume and record.is_file():
        before = json.loads(record.read_bytes())
        changed = [
            f"{key} was {before['config'].get(key)!r} and is {value!r}"
            for key, value in run["config"].items()
            if before["config"].get(key) != value
        ]
        changed += [
            f"the {key.replace('_', ' ')} differ" for key in ("train_rows", "dev_rows") if before[key] != run[key]
        ]
        if changed:
            raise DataError(
                f"{work}: cannot resume, {'; '.join(changed)}; use what the unfinished run used, or leave out --resume"
            )
        states = sorted(work.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]))
        # The trainer's own state is written last: without it the folder is half a state.
        whole = [path for path in states if (path / "trainer_state.json").is_file()]
        print(f"resuming after {whole[-1].name}" if whole else "resuming from the start", file=sys.stderr)
        return whole[-1] if whole else None
    if resume:
        print("no unfinished run to resume; starting anew", file=sys.stderr)
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    record.write_text(json.dumps(run, ensure_ascii=False), encoding="utf-8")
    return None


def _fingerprint(rows: Sequence[Row]) -> dict[str, Any]:
    digest = hashlib.sha256(json.dumps([[row.text, row.labels] for row in rows]).encode()).hexdigest()
    return {"count": len(rows), "sha256": digest}


def _model(config: TrainConfig, base: Any, labels: Sequence[str]) -> Any:
    kinds = {family(kind.config_class): kind for kind in mean_pooling.MODELS}
    own = config.pooling == "mean"
    settings = {key: value for key, value in base.to_dict().items() if key not in HEAD_SETTINGS}
    kind = kinds[family(base)].config_class if own else transformers.CONFIG_MAPPING[family(base)]
    head = kind(
        **settings,
        id2label=dict(enumerate(labels)),
        label2id={label: i for i, label in enumerate(labels)},
        problem_type="multi_label_classification" if config.multi_label else "single_label_classification",
    )
    build = transformers.AutoModelForSequenceClassification
    if config.init == "random":
        model = build.from_config(head)
    else:
        # A base that already is a classifier has a head of its own size; ours is made anew.
        model = fetch(
            kinds[family(base)].from_pretrained if own else build.from_pretrained,
            config.base,
            config=head,
            ignore_mismatched_sizes=True,
        )
    if config.init == "types":
        types = model.get_input_embeddings().weight.data.clone()
        model = build.from_config(head)
        model.get_input_embeddings().weight.data.copy_(types)
    frozen = {
        "none": [],
        "embeddings": [model.base_model.embeddings],
        "encoder": [model.base_model],
    }[config.freeze]
    for module in frozen:
        module.requires_grad_(requires_grad=False)
    return model


def _arguments(config: TrainConfig, work: Path, epochs: int) -> transformers.TrainingArguments:
    return transformers.TrainingArguments(
        output_dir=str(work),
        num_train_epochs=epochs,
        learning_rate=config.learning_rate,
        warmup_ratio=config.warmup_ratio,
        per_device_train_batch_size=config.batch_size,
        per_device_eval_batch_size=32,
        group_by_length=True,
        bf16=has_bfloat16(),
        use_cpu=not torch.cuda.is_available(),
        seed=config.seed,
        eval_strategy="epoch",
        save_strategy="epoch",
        logging_strategy="epoch",
        save_total_limit=1,  # and the best one, which the trainer keeps beside it
        load_best_model_at_end=True,
        restore_callback_states_from_checkpoint=True,  # a resumed run goes on counting epochs without a better score
        metric_for_best_model="macro_f1" if config.multi_label else "accuracy",
        disable_tqdm=True,
        report_to=[],
    )


def _optimizer(model: Any, config: TrainConfig) -> torch.optim.Optimizer:
    """
    Return AdamW whose learning rate falls from the classifier down to the embeddings.

    Lower layers hold what pretraining taught of language in general, and need to change least (Howard and Ruder
    2018, arXiv:1801.06146; Sun et al. 2019, arXiv:1905.05583).
    """
    layers = model.config.num_hidden_layers
    groups: dict[tuple[int, bool], list[torch.nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        layer = re.search(r"\.layer\.(\d+)\.", name)
        below = layers if ".embeddings." in name else layers - 1 - int(layer[1]) if layer else 0
        decays = parameter.dim() > 1  # not biases, nor the scales of layer normalisation
        groups.setdefault((below, decays), []).append(parameter)
    return torch.optim.AdamW(
        [
            {
                "params": parameters,
                "lr": config.learning_rate * config.layer_decay**below,
                "weight_decay": config.weight_decay * decays,
            }
            for (below, decays), parameters in groups.items()
        ],
        fused=True,  # a third of the time of the plain one, which was most of a step
    )


def _tokenized(rows: Sequence[Row], labels: Sequence[str], tokenizer: Any, *, multi_label: bool) -> Any:
    encoded = tokenizer([row.text for row in rows], truncation=True)["input_ids"]
    truth = targets(rows, labels)
    goals = truth.astype(np.float32) if multi_label else truth.argmax(axis=1)
    return [{"input_ids": ids, "labels": goal.tolist()} for ids, goal in zip(encoded, goals, strict=True)]


def _scorer(labels: Sequence[str], *, multi_label: bool) -> Any:
    def score(prediction: transformers.EvalPrediction) -> dict[str, float]:
        # Grouping by length reorders the rows: their truth is what came along with them.
        probabilities = (sigmoid if multi_label else softmax)(np.asarray(prediction.predictions, dtype=np.float32))
        goals = np.asarray(prediction.label_ids)
        truth = goals.astype(bool) if multi_label else goals[:, None] == np.arange(len(labels))
        metrics = measure(probabilities, truth, labels, multi_label=multi_label)
        return {"accuracy": metrics.accuracy, "macro_f1": metrics.macro_f1}

    return score


def _weighted_loss(train: Sequence[Row], labels: Sequence[str], config: TrainConfig) -> Any:
    truth = targets(train, labels)
    counts = torch.from_numpy(truth.sum(axis=0)).float()

    if config.multi_label:
        positive = (len(truth) - counts) / counts  # as if every label were on half of the rows

        def multi(outputs: Any, goals: Any, num_items_in_batch: Any = None) -> Any:  # noqa: ARG001
            return torch.nn.functional.binary_cross_entropy_with_logits(
                outputs["logits"].float(), goals, pos_weight=positive.to(goals.device)
            )

        return multi

    weights = len(truth) / (len(labels) * counts)

    def single(outputs: Any, goals: Any, num_items_in_batch: Any = None) -> Any:  # noqa: ARG001
        return torch.nn.functional.cross_entropy(outputs["logits"].float(), goals, weight=weights.to(goals.device))

    return single


def _history(log: Sequence[dict[str, Any]]) -> list[dict[str, float]]:
    """Merge what the trainer logged of each epoch: training loss, development loss and scores."""
    epochs: dict[float, dict[str, float]] = {}
    for entry in log:
        epoch = epochs.setdefault(entry["epoch"], {"epoch": entry["epoch"]})
        names = {
            "loss": "loss",
            "eval_loss": "dev_loss",
            "eval_accuracy": "dev_accuracy",
            "eval_macro_f1": "dev_macro_f1",
        }
        epoch.update({ours: entry[theirs] for theirs, ours in names.items() if theirs in entry})
    return [epoch for epoch in epochs.values() if "dev_accuracy" in epoch]


class _Progress(transformers.TrainerCallback):  # type: ignore[misc]
    """A bar on a terminal, and a line an epoch everywhere; both on stderr."""

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
        self.bar = tqdm(
            total=state.max_steps, initial=state.global_step, unit="step", disable=not sys.stderr.isatty(), leave=False
        )

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
        self.bar.update(state.global_step - self.bar.n)

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: dict[str, float], **_: Any) -> None:  # noqa: ARG002
        self.bar.write(
            f"epoch {state.epoch:g} of {state.num_train_epochs}: development accuracy "
            f"{metrics['eval_accuracy']:.4f}, macro-F1 {metrics['eval_macro_f1']:.4f}, loss {metrics['eval_loss']:.4f}",
            file=sys.stderr,
        )

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
        self.bar.close()
