"""The fine-tuning run: rows and a base model to the best checkpoint, readable from top to bottom."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import socket
import sys
import tempfile
import warnings
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import transformers

from inference.classifier import sigmoid, softmax
from inference.errors import InputError
from training import mean_pooling
from training.base import (
    ATTENTION_DROPOUT,
    HEAD_SETTINGS,
    family,
    fetch,
    fingerprint_of,
    hub_id,
    load_config,
    longest_input,
)
from training.calibration import fit_thresholds
from training.checkpoint import load_tokenizer
from training.data import fingerprint, label_names
from training.goals import Goals
from training.head import fit_head
from training.metrics import decide, intervals, measure, standard_error, targets, wilson
from training.objective import Objective
from training.precision import has_bfloat16
from training.processes import process_count
from training.record import RUN_FILE, write_record
from training.trainer import BESIDE, Arguments, Epochs, LatestOfTheBest, Progress, Trainer, chosen_epoch, history
from training.unfinished import check_same

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from training.data import Row
    from training.settings import TrainConfig

HEAD = -1  # the layer above the encoder's highest
EVAL_BATCH = 32
COMPARED = {  # of the record of a run that is resumed, besides its settings
    "base_model": "files of the base model",
    "train_rows": "train rows",
    "dev_rows": "dev rows",
    "teacher_answers": "teacher answers",
}
POOLED_LENGTH = 20.0  # of what the classifier reads: its weights stay near 1 for confident logits


def fine_tune(
    config: TrainConfig,
    train: Sequence[Row],
    dev: Sequence[Row],
    work: Path,
    *,
    start: Path | None = None,
    soft: NDArray[np.float32] | None = None,
    teacher: NDArray[np.float32] | None = None,
    resume: bool = False,
) -> Path:
    """
    Fine-tune a base model and return the folder of the checkpoint that the development rows chose.

    Under `torchrun` or `accelerate launch` every process calls it and takes its share of each batch, until they `part`.

    Args:
        config: The settings of the run.
        train: Rows to learn from.
        dev: Rows to choose the best epoch by; without any, the last one is taken.
        work: Folder of the run; keeps a state for every epoch, so that a killed run can go on.
        start: Checkpoint of the same base and labels, whose weights the run begins with.
        soft: What is learnt in place of the labels of `train`, shape (rows, labels), as `soft_labels` gives it.
        teacher: What another model says of `train`: probabilities, shape (rows, labels), labels in alphabetical order.
        resume: Go on from the last state in `work`; start anew where there is none.

    Raises:
        BaseModelError: the base model cannot be had or is of another family.
        InputError: more layers are to be kept than it has.
        DataError: `resume`, and the state in `work` is of other settings or other data.
    """
    config = (replace(config, soft_labels=0.0) if soft is None else config).for_rows(len(train), len(dev) or None)
    base = load_config(config.base)  # before an earlier run is cleared away: the name may be mistyped
    check_layers(config, base)
    tokenizer = load_tokenizer(config.base, detokenize=config.detokenize)

    run = {
        "config": asdict(config),
        "base_model": {"fingerprint": fingerprint_of(config.base)},
        "train_rows": fingerprint(train),
        "dev_rows": fingerprint(dev),
        "processes": process_count(),  # each has its own dropout, and its own part of a batch
    }
    if teacher is not None:
        run["teacher_answers"] = {"sha256": hashlib.sha256(teacher.tobytes()).hexdigest()}
    # Joins the other processes, if there are any.
    arguments = _arguments(config, work, choose=bool(dev))
    with arguments.main_process_first(desc="opening the folder of the run"):
        if arguments.should_save:
            _open_work(work, run, resume=resume)
        state = _last_state(work)
    best = work / "best"
    if (best / RUN_FILE).is_file():  # written last: training had ended
        return best

    fitted = config.fits_head and not start
    trainer = _trainer(
        config,
        base,
        tokenizer,
        train,
        dev,
        arguments,
        start=start,
        soft=soft,
        teacher=teacher,
        fit_head=fitted and not state,
    )
    with warnings.catch_warnings():
        # Some file systems order states by number, which is the order they were made in.
        warnings.filterwarnings("ignore", message="mtime may not be reliable")
        if not (fitted and config.freeze == "encoder"):
            if state and _had_ended(state):
                trainer.go_back(state)
            else:
                trainer.train(resume_from_checkpoint=str(state) if state else None)
        elif dev:  # fitted, there is nothing left to learn
            trainer.evaluate()
    _save(trainer, tokenizer, best, run)
    if torch.distributed.is_initialized():
        torch.distributed.barrier()  # what one has saved, all may read
    return best


def fit(config: TrainConfig, train: Sequence[Row], *, callbacks: Sequence[Any] = ()) -> tuple[Any, Any]:
    """
    Fine-tune on all rows, by their labels alone and to the last epoch; keep nothing on disk.

    Args:
        config: The settings of the run.
        train: Rows to learn from.
        callbacks: Transformers' trainer callbacks that watch it.

    Returns:
        The model, in evaluation mode and computing in float32, and its tokenizer.

    Raises:
        BaseModelError: as `fine_tune`.
    """
    config = replace(config, soft_labels=0.0, self_distillation=0.0).for_rows(len(train))
    base, tokenizer = load_config(config.base), load_tokenizer(config.base, detokenize=config.detokenize)
    with tempfile.TemporaryDirectory() as folder:
        arguments = _arguments(config, Path(folder), choose=False, keep=False)
        trainer = _trainer(config, base, tokenizer, train, [], arguments, fit_head=config.fits_head)
        for callback in callbacks:
            trainer.add_callback(callback)
        trainer.train()
        # Without the wrapper in which it has learnt: what it says is to depend on no machine's bfloat16.
        model = trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False)
    return model.eval(), tokenizer


def _trainer(
    config: TrainConfig,
    base: Any,
    tokenizer: Any,
    train: Sequence[Row],
    dev: Sequence[Row],
    arguments: Arguments,
    *,
    start: Path | None = None,
    soft: NDArray[np.float32] | None = None,
    teacher: NDArray[np.float32] | None = None,
    fit_head: bool,
) -> Trainer:
    """Return what trains a model at its start."""
    labels = label_names(train)
    tokenizer.model_max_length = min(config.max_tokens, longest_input(base))
    model = start_model(config, base, labels, start)
    truth = targets(train, labels)
    objective = Objective.of(truth, config)
    data = _tokenized(train, truth, tokenizer, multi_label=config.multi_label)
    goals = None
    if soft is not None or config.self_distillation:
        share, epochs = config.self_distillation or 0.0, config.epochs or 1
        goals = Goals(truth, soft, share=share, epochs=epochs, towards=objective.towards)
        data = [item | {"row": i} for i, item in enumerate(data)]
    collate = transformers.DataCollatorWithPadding(tokenizer)
    if fit_head:
        _fit_head(model, data, collate, objective, goals)
    if teacher is not None:
        data = [item | {"teacher": row.tolist()} for item, row in zip(data, teacher, strict=True)]
    trainer = Trainer(
        model=model,
        args=arguments,
        objective=objective,
        goals=goals,
        train_dataset=data,
        eval_dataset=_tokenized(dev, targets(dev, labels), tokenizer, multi_label=config.multi_label),
        data_collator=collate,
        compute_metrics=_scorer(labels, config),
        optimizers=(optimizer(model, config), None),
        callbacks=[
            *([LatestOfTheBest(config.patience, len(dev))] if dev else []),
            *([Epochs(goals)] if goals else []),
            *([Progress()] if arguments.save_strategy != "no" else []),
        ],
    )
    trainer.remove_callback(transformers.PrinterCallback)
    return trainer


def start_model(config: TrainConfig, base: Any, labels: Sequence[str], start: Path | None = None) -> Any:
    """
    Return the model that a run begins with: the base's weights, or random ones, and a random head.

    The random generators begin anew at the seed of the run, so that the same settings give the same weights, as far as
    torch and transformers are the same versions. A head that is to be fitted on the rows is not fitted yet.

    Args:
        config: The settings of the run, as `TrainConfig.for_rows` completes them.
        base: What `training.base.load_config` says of the base model.
        labels: What is told apart, in the order of the outputs.
        start: Checkpoint of that base and these labels to begin with in place of it, its head too.

    Raises:
        BaseModelError: the base model cannot be had.
    """
    transformers.set_seed(config.seed)
    return _model(config, base, labels, start)


def check_layers(config: TrainConfig, base: Any) -> None:
    """Raise InputError if more layers of a base are to be kept than its configuration has."""
    if config.layers and config.layers > base.num_hidden_layers:
        raise InputError(
            f"--layers is {config.layers}, but {config.base} has {base.num_hidden_layers}; expected at most so many, "
            "since layers are kept and none are added"
        )


def _save(trainer: Any, tokenizer: Any, folder: Path, run: dict[str, Any]) -> None:
    """Save the model as any program loads it, and the record of its run."""
    trainer.save_model(str(folder))
    if not trainer.args.should_save:
        return
    tokenizer.save_pretrained(str(folder))
    (folder / "training_args.bin").unlink(missing_ok=True)  # a pickle, and all of it is in train.json
    record = run | {
        # What is really read: a base may have fewer positions than were asked for.
        "config": run["config"] | {"max_tokens": tokenizer.model_max_length},
        "history": history(trainer.state.log_history),
        "chosen_epoch": chosen_epoch(trainer.state),
        "hub_id": hub_id(run["config"]["base"]),  # of the base, None for a folder: later a name may say neither
        "precision": "bfloat16" if has_bfloat16() else "float32",
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
    }
    write_record(folder, record)


def _open_work(work: Path, run: dict[str, Any], *, resume: bool) -> None:
    """Prepare the folder of a run: empty, or as an unfinished run of the same settings and data left it."""
    record = work / RUN_FILE
    if resume and record.is_file():
        before = json.loads(record.read_bytes())
        differing = [f"the {name} differ" for key, name in COMPARED.items() if before.get(key) != run.get(key)]
        settings, today = (one["config"] | {"processes": one["processes"]} for one in (before, run))
        check_same(work, settings, today, differing=differing)
        if (work / "best" / RUN_FILE).is_file():
            print("resuming after its end: this had been learnt", file=sys.stderr)
        else:
            state = _last_state(work)
            print(f"resuming after {state.name}" if state else "resuming from the start", file=sys.stderr)
        return
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    write_record(work, run)


def _last_state(work: Path) -> Path | None:
    """Return the state to go on from, if there is one."""
    states = sorted(work.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]))
    whole = [path for path in states if _is_whole(path)]
    return whole[-1] if whole else None


def _is_whole(state: Path) -> bool:
    """Say whether a state was written to its end: the trainer's own part, which is its last, is there and complete."""
    try:
        json.loads((state / "trainer_state.json").read_bytes())
    except (FileNotFoundError, ValueError):
        return False
    return True


def _had_ended(state: Path) -> bool:
    """Say whether a run had nothing left to do but to save the model, as after the epoch in which it was stopped."""
    saved = json.loads((state / "trainer_state.json").read_bytes())
    return bool(saved["stateful_callbacks"]["TrainerControl"]["args"]["should_training_stop"])


def _model(config: TrainConfig, base: Any, labels: Sequence[str], start: Path | None) -> Any:
    kinds = {family(kind.config_class): kind for kind in mean_pooling.MODELS}
    own = config.pooling == "mean"
    settings = {key: value for key, value in base.to_dict().items() if key not in HEAD_SETTINGS}
    kind = kinds[family(base)].config_class if own else transformers.CONFIG_MAPPING[family(base)]
    if own:
        settings["pooled_length"] = POOLED_LENGTH
    if config.layers:
        settings["n_layers" if family(base) == "distilbert" else "num_hidden_layers"] = config.layers
    settings[ATTENTION_DROPOUT[family(base)]] = 0.0
    head = kind(
        **settings,
        id2label=dict(enumerate(labels)),
        label2id={label: i for i, label in enumerate(labels)},
        problem_type="multi_label_classification" if config.multi_label else "single_label_classification",
    )
    build = transformers.AutoModelForSequenceClassification
    load = kinds[family(base)].from_pretrained if own else build.from_pretrained
    if start:
        model = load(start, config=head)
    elif config.init == "random":
        model = build.from_config(head)
    else:
        model, told = fetch(load, config.base, config=head, ignore_mismatched_sizes=True, output_loading_info=True)
        _begin_head_anew(model, {*told["missing_keys"], *(name for name, *_ in told["mismatched_keys"])})
    if config.init == "types" and not start:
        types = model.get_input_embeddings().weight.data.clone()
        model = build.from_config(head)
        model.get_input_embeddings().weight.data.copy_(types)
    # Of types alone, what is random beside them has to learn.
    embeddings = model.get_input_embeddings() if config.init == "types" else model.base_model.embeddings
    frozen = {"none": [], "embeddings": [embeddings], "encoder": [model.base_model]}[config.freeze or "none"]
    for module in frozen:
        module.requires_grad_(requires_grad=False)
    return model


def _begin_head_anew(model: Any, new: set[str]) -> None:
    """Make the head of a base that is a classifier random: it tells other labels apart, even if they are as many."""
    for name, module in model.named_modules():
        above = not f"{name}.".startswith(f"{model.base_model_prefix}.")
        if above and isinstance(module, torch.nn.Linear) and f"{name}.weight" not in new:
            model._init_weights(module)  # as Transformers itself makes what a checkpoint lacks


def _arguments(config: TrainConfig, work: Path, *, choose: bool, keep: bool = True) -> Arguments:
    processes = process_count()
    if config.batch_size % processes:
        raise InputError(
            f"--batch-size is {config.batch_size}; expected a multiple of {processes}, the number of processes"
        )
    if processes > 1 and os.environ.get("MASTER_ADDR") in ("127.0.0.1", "localhost"):
        # Processes of one machine: gloo would look the machine's name up, for minutes where no name server answers.
        loopback = next((name for _, name in socket.if_nameindex() if name in ("lo", "lo0")), None)
        if loopback:
            os.environ.setdefault("GLOO_SOCKET_IFNAME", loopback)
    return Arguments(
        output_dir=str(work),
        num_train_epochs=config.epochs,
        learning_rate=config.learning_rate,
        warmup_ratio=config.warmup_ratio,
        per_device_train_batch_size=config.batch_size // processes,
        per_device_eval_batch_size=EVAL_BATCH,
        remove_unused_columns=False,  # the loss reads what the model does not
        bf16=has_bfloat16(),
        use_cpu=not torch.cuda.is_available(),
        ddp_find_unused_parameters=False,
        ddp_backend="gloo" if processes > 1 and not torch.cuda.is_available() else None,
        seed=config.seed,
        eval_strategy="epoch" if choose else "no",
        save_strategy="epoch" if keep else "no",
        logging_strategy="epoch" if keep else "no",
        save_total_limit=1,  # and the best one, which the trainer keeps beside it
        load_best_model_at_end=choose,
        metric_for_best_model=config.selection if choose else None,
        disable_tqdm=True,
        log_level_replica="error",  # as quiet as the first process
        report_to=[],
    )


def optimizer(model: Any, config: TrainConfig) -> torch.optim.Optimizer:
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
        above = 0 if name.startswith(f"{model.base_model_prefix}.") else HEAD  # BERT's pooler is pretrained, too
        below = layers if ".embeddings." in name else layers - 1 - int(layer[1]) if layer else above
        decays = parameter.dim() > 1  # not biases, nor the scales of layer normalisation
        groups.setdefault((below, decays), []).append(parameter)
    return torch.optim.AdamW(
        [
            {
                "params": parameters,
                "lr": config.head_learning_rate if below == HEAD else config.learning_rate * config.layer_decay**below,
                "weight_decay": config.weight_decay * decays,
            }
            for (below, decays), parameters in groups.items()
        ],
        fused=True,  # a third of the time of the plain one, which was most of a step
    )


def _tokenized(
    rows: Sequence[Row], truth: NDArray[np.bool_], tokenizer: Any, *, multi_label: bool
) -> list[dict[str, Any]]:
    encoded = tokenizer([row.text for row in rows], truncation=True)["input_ids"] if rows else []
    goals = truth.astype(np.float32) if multi_label else truth.argmax(axis=1)
    return [{"input_ids": ids, "labels": goal.tolist()} for ids, goal in zip(encoded, goals, strict=True)]


def _scorer(labels: Sequence[str], config: TrainConfig) -> Any:
    def score(prediction: transformers.EvalPrediction) -> dict[str, float]:
        # Grouping by length reorders the rows: their truth is what came along with them.
        multi_label = config.multi_label
        probabilities = (sigmoid if multi_label else softmax)(np.asarray(prediction.predictions, dtype=np.float32))
        goals = np.asarray(prediction.label_ids)
        truth = goals.astype(bool) if multi_label else goals[:, None] == np.arange(len(labels))
        # As the finished model will give labels: where several may be, at thresholds of their own.
        thresholds = fit_thresholds(probabilities, truth) if multi_label else None
        metrics = measure(probabilities, truth, labels, multi_label=multi_label, thresholds=thresholds)
        if config.selection == "accuracy":
            interval = wilson(metrics.accuracy, len(truth))
        else:
            decided = decide(probabilities, multi_label=multi_label, thresholds=thresholds)
            interval = intervals(decided, truth).macro_f1
        return {
            "accuracy": metrics.accuracy,
            "macro_f1": metrics.macro_f1,
            "standard_error": standard_error(interval),
        }

    return score


def _fit_head(
    model: Any, data: Sequence[dict[str, Any]], collate: Any, objective: Objective, learnt: Goals | None
) -> None:
    """Start with the best classifier of the vectors that pretraining gives (Kumar et al. 2022, arXiv:2202.10054)."""
    order = sorted(range(len(data)), key=lambda i: len(data[i]["input_ids"]))
    batches = [[data[i] for i in order[start : start + EVAL_BATCH]] for start in range(0, len(order), EVAL_BATCH)]
    vectors, goals = [], []
    model.eval()
    with torch.no_grad():
        for batch in map(collate, batches):
            inputs = {name: values for name, values in batch.items() if name not in BESIDE}
            states = model.base_model(**inputs).last_hidden_state
            vectors.append(model.pool(states, inputs["attention_mask"]))
            goals.append(batch["labels"] if learnt is None else learnt.of(batch["row"]))
    fit_head(model.classifier, torch.cat(vectors), torch.cat(goals), objective)
