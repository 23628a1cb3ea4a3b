"""Transformers' trainer as a run uses it: our loss, our order of the rows, and the epoch that is taken."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import transformers
from safetensors.torch import load_file
from tqdm import tqdm

from training.objective import TEACHER_SHARE, Objective
from training.order import POOLED_BATCHES, by_length
from training.precision import mixed_precision
from training.settings import CHOOSING_ROWS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from training.goals import Goals

BESIDE = {"labels", "teacher", "row"}  # what a batch has that the model does not read


class Arguments(transformers.TrainingArguments):  # type: ignore[misc]
    """What Transformers' trainer is told."""

    @property
    def device(self) -> torch.device:
        """The device to train on; of several processes the CPU has a number, by which torch.load finds none."""
        found: torch.device = super().device
        return torch.device("cpu") if found.type == "cpu" else found


class Trainer(transformers.Trainer):  # type: ignore[misc]
    """Transformers' trainer with our loss."""

    def __init__(self, *arguments: Any, objective: Objective, goals: Goals | None, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.objective = objective
        self.goals = goals

    def compute_loss_context_manager(self) -> Any:
        """Return what the trainer computes a loss in."""
        return mixed_precision() if self.args.use_cpu else super().compute_loss_context_manager()

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, torch.Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,  # noqa: ARG002
    ) -> Any:
        """Return the loss of a batch: in training of two passes over it, if they are to agree."""
        goals, teacher = inputs["labels"], inputs.get("teacher")
        learnt = self.goals if model.training else None
        if learnt:
            rows = inputs["row"].cpu()
            goals = learnt.of(rows).to(goals.device)
        inputs = {name: values for name, values in inputs.items() if name not in BESIDE}
        twice = model.training and self.objective.consistency > 0
        if twice:
            inputs = {name: values.repeat(2, 1) for name, values in inputs.items()}
            goals = goals.repeat(2, *[1] * (goals.dim() - 1))
        outputs = model(**inputs)
        logits = outputs["logits"].float()
        if learnt:
            said = logits.detach().softmax(dim=-1).cpu()
            learnt.hear(rows, torch.stack(said.chunk(2)).mean(dim=0) if twice else said)
        loss = self.objective.loss(logits, goals)
        if model.training and teacher is not None:
            teacher = teacher.repeat(2, 1) if twice else teacher
            loss = (1 - TEACHER_SHARE) * loss + TEACHER_SHARE * self.objective.follow(logits, teacher)
        if twice:
            loss = loss + self.objective.consistency * self.objective.distance(*logits.chunk(2))
        return (loss, outputs) if return_outputs else loss

    def floating_point_ops(self, inputs: Any) -> int:  # noqa: ARG002
        """Return 0: nobody reads the count, for which all weights would be looked through at every step."""
        return 0

    def go_back(self, state: Path) -> None:
        """Become what the run was when it ended: its course, and the weights of the epoch that was chosen."""
        self.state = transformers.TrainerState.load_from_json(str(state / "trainer_state.json"))
        chosen = state.with_name(f"checkpoint-{self.state.best_global_step or self.state.global_step}")
        self.model.load_state_dict(load_file(chosen / "model.safetensors"))

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        rows = self.train_dataset if train_dataset is None else train_dataset
        return Order(self, [len(row["input_ids"]) for row in rows])

    def _get_eval_sampler(self, eval_dataset: Any) -> Any:
        # From short to long, and by chance in no way: the processes of a run would each draw another order.
        return sorted(range(len(eval_dataset)), key=lambda i: len(eval_dataset[i]["input_ids"]))

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        super()._save_optimizer_and_scheduler(output_dir)
        if self.goals and self.args.should_save:
            self.goals.save(Path(output_dir))

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if self.goals and checkpoint:
            self.goals.load(Path(checkpoint))


class Order(torch.utils.data.Sampler[int]):
    """
    The order of the rows in an epoch: batches of similar length, one after the other by chance.

    It depends on seed and epoch alone: processes that share a run need the same one, or some rows come twice and others
    not at all, and what dropout draws would otherwise move their generators apart.
    """

    def __init__(self, trainer: Trainer, lengths: Sequence[int]) -> None:
        self.trainer = trainer
        self.lengths = lengths
        self.batch = trainer.args.train_batch_size * trainer.args.world_size

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        epoch = round(self.trainer.state.epoch or 0)
        generator = torch.Generator().manual_seed((self.trainer.args.seed << 16) + epoch)
        rows = torch.randperm(len(self), generator=generator).numpy()
        whole = len(self) // self.batch
        # In no more than a quarter of them together, so that other rows meet in every epoch.
        pooled = max(1, min(POOLED_BATCHES, whole // 4))
        batches = by_length(rows[: whole * self.batch], self.lengths, self.batch, pooled)
        for number in torch.randperm(whole, generator=generator).tolist():
            yield from batches[number].tolist()
        yield from rows[whole * self.batch :].tolist()


class LatestOfTheBest(transformers.TrainerCallback):  # type: ignore[misc]
    """
    Take the latest epoch within one standard error of the best development score; stop after enough worse ones.

    Their order is chance, and the later ones end nearer to where the falling learning rate leads. The rule is that of
    Breiman et al. 1984 ("Classification and Regression Trees", 3.4.3), who prefer the simpler of equal trees. Fewer
    than `CHOOSING_ROWS` rows tell no epoch from another: the best of many is the luckiest one, and the last is taken.

    Args:
        patience: Epochs after the chosen one, all of them worse, after which training stops.
        rows: Development rows.
    """

    def __init__(self, patience: int, rows: int) -> None:
        self.patience = patience
        self.rows = rows

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: dict[str, float], **_: Any) -> None:
        """Take this epoch if it is as good as the best one; stop if too many were worse."""
        name = f"eval_{args.metric_for_best_model}"
        best = max((entry for entry in state.log_history if name in entry), key=lambda entry: entry[name])
        close = metrics[name] >= best[name] - best["eval_standard_error"]
        if close or self.rows < CHOOSING_ROWS:
            state.best_global_step = state.global_step  # the trainer does so itself where a score is the best yet
            return
        # The log goes with the state of the run, so that a resumed one counts on.
        worse = sum(name in entry and entry["step"] > state.best_global_step for entry in state.log_history)
        control.should_training_stop |= worse >= self.patience


class Epochs(transformers.TrainerCallback):  # type: ignore[misc]
    """Tells what rows are learnt with where an epoch begins and ends."""

    def __init__(self, goals: Goals) -> None:
        self.goals = goals

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
        """Say which epoch begins."""
        self.goals.epoch = round(state.epoch)

    def on_epoch_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
        """Let what the model said be learnt in the next one."""
        self.goals.turn()


class Progress(transformers.TrainerCallback):  # type: ignore[misc]
    """A bar on a terminal, and a line an epoch everywhere; both on stderr, of one process."""

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
        """Show a bar where there is a terminal."""
        hidden = not sys.stderr.isatty() or not state.is_world_process_zero
        self.bar = tqdm(total=state.max_steps, initial=state.global_step, unit="step", disable=hidden, leave=False)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
        """Move it on."""
        self.bar.update(state.global_step - self.bar.n)

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: dict[str, float], **_: Any) -> None:  # noqa: ARG002
        """Say what the development rows say."""
        if state.is_world_process_zero:
            learnt = f"epoch {state.epoch:g} of {state.num_train_epochs}" if state.epoch else "the fitted classifier"
            tqdm.write(
                f"{learnt}: development accuracy "
                f"{metrics['eval_accuracy']:.4f}, macro-F1 {metrics['eval_macro_f1']:.4f}, "
                f"loss {metrics['eval_loss']:.4f}",
                file=sys.stderr,
            )

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
        """Take the bar away."""
        self.bar.close()


def history(log: Sequence[dict[str, Any]]) -> list[dict[str, float]]:
    """Merge what the trainer logged of each epoch: training loss, development loss and scores."""
    epochs: dict[float, dict[str, float]] = {}
    for entry in log:
        number = entry.get("epoch") or 0.0
        epoch = epochs.setdefault(number, {"epoch": number})
        names = {
            "loss": "loss",
            "eval_loss": "dev_loss",
            "eval_accuracy": "dev_accuracy",
            "eval_macro_f1": "dev_macro_f1",
        }
        epoch.update({ours: entry[theirs] for theirs, ours in names.items() if theirs in entry})
    return [epoch for epoch in epochs.values() if "loss" in epoch or "dev_accuracy" in epoch]


def chosen_epoch(state: Any) -> float | None:
    """Return the epoch whose weights the model has; None where there was nothing to learn or to measure."""
    step = state.best_global_step or state.global_step
    return next((entry.get("epoch") or 0.0 for entry in state.log_history if entry["step"] == step), None)
