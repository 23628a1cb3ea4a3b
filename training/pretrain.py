"""The pretraining run: raw text and a base, or nothing, to a masked language model; readable from top to bottom."""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import sys
import time
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import transformers
from tqdm import tqdm

from inference.artifact import check_replaceable, staged
from inference.errors import InputError
from training.base import fingerprint_of, longest_input, quiet_transformers
from training.corpus import Tokens, batches, divide, read_corpus
from training.errors import DataError
from training.masked import MaskedModel, PseudoPerplexity, head_parameters, masked_logits, pseudo_perplexity
from training.masking import Masking
from training.precision import has_bfloat16, mixed_precision
from training.record import write_record
from training.unfinished import alone, check_same
from training.wordpieces import learn_tokenizer

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from training.settings import PretrainConfig

RECORD = "pretrain.json"  # settings, data, course and figures of a run; stays beside the checkpoint it made
RUN, STATE, TOKENIZER = "run.json", "state.pt", "tokenizer"  # in the folder of an unfinished run
KIND = "pretrained base"  # what the folder with the record is called in errors
WATCHED = 1000  # held-out texts, at most, whose masked loss is measured after every pass
CLIP = 1.0  # largest norm of a gradient
NEW_HEAD_RATE = 1e-3  # least learning rate of a head that starts new on a base
SPEED_STEPS = 20  # that are timed, and thrown away, where minutes are to be kept
RESERVE = 0.05  # of the minutes: speed varies
STATE_SHARE = 20  # a state is saved when training has taken so many times as long as saving does


def pretrain(
    config: PretrainConfig, corpus: Sequence[str | Path], out: Path, *, resume: bool = False
) -> dict[str, Any]:
    """
    Pretrain on raw text by masked words, and write a Transformers checkpoint with its head.

    A run that is stopped leaves a hidden folder beside `out`, from which `resume` goes on to the same weights.

    Args:
        config: The settings of the run.
        corpus: Files of sentences, as `read_corpus` takes them.
        out: Becomes the checkpoint; one that this command wrote is replaced in one step.
        resume: Go on with the unfinished run of the same `out`; start anew where there is none.

    Returns:
        What pretrain.json holds.

    Raises:
        ArtifactError: `out` holds something else.
        BaseModelError: the base model cannot be had, is of another family, or its tokenizer has no mask token.
        DataError: the files hold too little text, or `resume` finds other settings or other texts.
        InputError: another process pretrains the same `out`, or training diverged.
    """
    check_replaceable(out, mark=RECORD, kind=KIND)
    work = out.parent / f".{out.name}.pretraining"
    with alone(work):
        return _pretrain(config.resolved(), corpus, out, work, resume=resume)


def _pretrain(
    config: PretrainConfig, corpus: Sequence[str | Path], out: Path, work: Path, *, resume: bool
) -> dict[str, Any]:
    began = time.monotonic()
    quiet_transformers()
    texts, held_out = divide(
        read_corpus(corpus, text_column=config.text_column), share=config.held_out, seed=config.seed
    )
    transformers.set_seed(config.seed)  # which a new head is drawn from
    # Before anything is cleared away.
    masked = None if config.from_scratch else MaskedModel.start(config.base, dropout=config.dropout)
    run = {
        "config": asdict(config),
        "base_model": None if config.from_scratch else {"fingerprint": fingerprint_of(config.base)},
        "texts": _fingerprint(texts),
        "held_out": _fingerprint(held_out),
    }
    _open_work(work, run, resume=resume)

    masked = masked or _from_scratch(config, texts, work)
    model, tokenizer = masked.model, masked.tokenizer
    max_tokens = min(config.max_tokens, longest_input(model.config))
    learning = Learning.of(config, masked, Tokens.of(texts, tokenizer, max_tokens=max_tokens))
    watched, measured = _held_out(config, held_out, tokenizer, max_tokens=max_tokens)

    state = _read_state(work)
    if state is None:
        started = time.monotonic()
        before = pseudo_perplexity(model, tokenizer, measured, max_tokens=max_tokens)
        measuring = time.monotonic() - started
        _announce(config, masked, learning, before)
        steps = _steps(config, learning, watched, spent=time.monotonic() - began + measuring)
        state = {"step": 0, "steps": steps, "before": _figures(before), "history": []}
        _write_state(work, learning, state)
    else:
        learning.restore(state)
        print(f"resuming after step {state['step']} of {state['steps']}", file=sys.stderr)
    _learn(learning, watched, state, work)

    after = pseudo_perplexity(model.eval(), tokenizer, measured, max_tokens=max_tokens)
    _check_finite(after.value, "the pseudo-perplexity at the end")
    record = run | {
        "head": "pretrained" if masked.has_head else "new",
        "vocabulary": len(tokenizer),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "tokens": len(learning.tokens.ids),
        "steps": state["steps"],
        "history": state["history"],
        "pseudo_perplexity": {"before": state["before"], "after": _figures(after)},
        "precision": "bfloat16" if has_bfloat16() else "float32",
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
    }
    with staged(out, mark=RECORD, kind=KIND) as folder:
        model.save_pretrained(folder)
        tokenizer.backend_tokenizer.no_truncation()  # where to cut is for its user to say
        tokenizer.save_pretrained(folder)
        text = json.dumps(record, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        (folder / RECORD).write_text(text, encoding="utf-8")
    shutil.rmtree(work)
    return record


@dataclass
class Learning:
    """A model, what it learns from, and the optimiser that changes it."""

    model: Any
    tokens: Tokens
    masking: Masking
    optimizer: torch.optim.Optimizer
    rates: list[float]  # peak learning rate of each group of parameters
    batch_size: int
    warmup_ratio: float
    seed: int
    _order: tuple[int, list[NDArray[np.int64]]] = field(default=(-1, []), repr=False)  # a pass, and its batches

    @classmethod
    def of(cls, config: PretrainConfig, masked: MaskedModel, tokens: Tokens) -> Learning:
        """Prepare to learn from tokenized texts."""
        peak = config.learning_rate or 0.0
        new = [] if config.from_scratch or masked.has_head else head_parameters(masked.model)
        groups: dict[tuple[float, float], list[Any]] = {}
        for parameter in masked.model.parameters():
            rate = max(peak, NEW_HEAD_RATE) if any(parameter is one for one in new) else peak
            decay = config.weight_decay if parameter.dim() > 1 else 0.0  # not biases, nor scales of normalisation
            groups.setdefault((rate, decay), []).append(parameter)
        return cls(
            masked.model,
            tokens,
            Masking.of(masked.tokenizer, share=config.mask_share),
            torch.optim.AdamW(
                [{"params": some, "lr": rate, "weight_decay": decay} for (rate, decay), some in groups.items()],
                betas=(0.9, 0.98),
                fused=True,
            ),
            [rate for rate, _ in groups],
            config.batch_size or 1,
            config.warmup_ratio,
            config.seed,
        )

    @cached_property
    def steps_a_pass(self) -> int:
        """The number of steps in which every text is read once."""
        return len(self.batches(0))

    def batches(self, number: int) -> list[NDArray[np.int64]]:
        """Return the batches of a pass, as the numbers of their texts."""
        if self._order[0] != number:
            self._order = number, batches(self.tokens, self.batch_size, np.random.default_rng([self.seed, 1, number]))
        return self._order[1]

    def step(self, number: int, steps: int) -> float:
        """
        Learn from the batch of a step and return its loss.

        Order, masks and dropout follow from the seed and the number alone: a resumed run needs no other memory of them.

        Args:
            number: From 0.
            steps: Of the whole run, by which the learning rate goes.
        """
        chosen = self.batches(number // self.steps_a_pass)[number % self.steps_a_pass]
        torch.manual_seed(int(np.random.default_rng([self.seed, 3, number]).integers(2**63)))
        warmup = max(1, round(self.warmup_ratio * steps))
        scale = min((number + 1) / warmup, (steps - number) / max(1, steps - warmup))
        for group, peak in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = peak * scale
        self.model.train()
        loss, _ = self.loss(chosen, np.random.default_rng([self.seed, 2, number]))
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), CLIP)
        self.optimizer.step()
        return float(loss.detach())

    def loss(
        self, chosen: NDArray[np.int64], generator: np.random.Generator, tokens: Tokens | None = None
    ) -> tuple[torch.Tensor, int]:
        """Return the mean cross-entropy (nats) of the hidden tokens of chosen texts, and how many those are."""
        return _loss(self.model, self.masking, tokens or self.tokens, chosen, generator)

    def held_out_loss(self, tokens: Tokens) -> float:
        """Return the mean cross-entropy (nats) of hidden tokens of other texts, the same ones at every call."""
        self.model.eval()
        total, count = 0.0, 0
        generator = np.random.default_rng([self.seed, 4])
        with torch.inference_mode():
            for chosen in batches(tokens, 64, generator):
                loss, hidden = self.loss(chosen, generator, tokens)
                total, count = total + float(loss) * hidden, count + hidden
        return total / count

    def snapshot(self) -> dict[str, Any]:
        """Return all that changes from step to step."""
        return {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}

    def restore(self, state: dict[str, Any]) -> None:
        """Take the place of the run that a state is of."""
        self.model.load_state_dict(state.pop("model"))
        self.optimizer.load_state_dict(state.pop("optimizer"))


def _loss(
    model: Any, masking: Masking, tokens: Tokens, chosen: NDArray[np.int64], generator: np.random.Generator
) -> tuple[torch.Tensor, int]:
    ids, words = tokens.batch(chosen)
    read, hidden = masking.hide(ids, words, generator)
    inside = np.arange(ids.shape[1]) < tokens.lengths[chosen][:, None]
    with mixed_precision():
        output = model.base_model(
            input_ids=torch.from_numpy(read), attention_mask=torch.from_numpy(inside.astype(np.int64))
        )
        logits = masked_logits(model, output.last_hidden_state[torch.from_numpy(hidden)])
    goals = torch.from_numpy(ids[hidden])
    return torch.nn.functional.cross_entropy(logits.float(), goals), len(goals)


def _learn(learning: Learning, watched: Tokens, state: dict[str, Any], work: Path) -> None:
    """Take the steps that are left; `state` follows them, on disk too."""
    steps, one_pass = state["steps"], learning.steps_a_pass
    losses: list[float] = []
    saved, took = time.monotonic(), 0.0
    bar = tqdm(total=steps, initial=state["step"], unit="step", disable=not sys.stderr.isatty(), leave=False)
    with bar:
        while state["step"] < steps:
            loss = learning.step(state["step"], steps)
            state["step"] += 1
            _check_finite(loss, f"the loss of step {state['step']} of {steps}")
            losses.append(loss)
            bar.update()
            if state["step"] % one_pass == 0 or state["step"] == steps:
                entry = {
                    "epoch": round(state["step"] / one_pass, 3),
                    "step": state["step"],
                    "loss": float(np.mean(losses)),  # of a resumed pass: of what was left of it
                    "held_out_loss": learning.held_out_loss(watched),
                }
                state["history"].append(entry)
                losses = []
                bar.write(
                    f"epoch {entry['epoch']:g} of {steps / one_pass:.4g}: loss {entry['loss']:.4f}, "
                    f"held-out loss {entry['held_out_loss']:.4f}",
                    file=sys.stderr,
                )
            if time.monotonic() - saved >= STATE_SHARE * took or state["step"] == steps:
                started = time.monotonic()
                _write_state(work, learning, state)
                saved = time.monotonic()
                took = saved - started


def _check_finite(value: float, what: str) -> None:
    """
    Stop where nothing can be learnt any more.

    Raises:
        InputError: the weights are no numbers, or give none.
    """
    if not math.isfinite(value):
        raise InputError(
            f"{what} is {value}: training diverged; give a lower --learning-rate, or a lower --weight-decay"
        )


def _steps(config: PretrainConfig, learning: Learning, watched: Tokens, *, spent: float) -> int:
    """
    Return how many steps the run has, and say so.

    Args:
        config: Its `epochs`, `minutes` or both decide.
        learning: What the speed is measured with; it is as before afterwards.
        watched: What it is measured on after every pass.
        spent: Seconds of the minutes that are taken, the last measurement included.
    """
    one_pass = learning.steps_a_pass
    asked = config.epochs * one_pass if config.epochs else None
    if asked and config.minutes is None:
        return asked
    minutes = config.minutes or 0.0  # one of the two is given
    before = {name: value.clone() for name, value in learning.model.state_dict().items()}
    optimizer = learning.optimizer.state_dict()
    count = min(SPEED_STEPS, one_pass)
    learning.step(0, 10**6)  # the first one is slow
    started = time.monotonic()
    for number in range(count):
        learning.step(number, 10**6)
    seconds = (time.monotonic() - started) / count
    learning.model.load_state_dict(before)
    learning.optimizer.load_state_dict(optimizer)
    started = time.monotonic()
    learning.held_out_loss(watched)
    measuring = time.monotonic() - started
    # This measurement, and one at the end; with each step its share of the states and of what follows every pass.
    left = minutes * 60 * (1 - RESERVE) - spent - (count + 1) * seconds - 2 * measuring
    fit = int(left / (seconds * (1 + 1 / STATE_SHARE) + measuring / one_pass))
    steps = max(1, min(fit, asked) if asked else fit)
    print(
        f"{1 / seconds:.1f} steps a second: {steps} steps ({steps / one_pass:.3g} epochs) in {minutes:g} minutes",
        file=sys.stderr,
    )
    return steps


def _from_scratch(config: PretrainConfig, texts: Sequence[str], work: Path) -> MaskedModel:
    """Learn a vocabulary, and make a BERT of random weights for it."""
    folder = work / TOKENIZER
    if folder.is_dir():
        tokenizer = transformers.BertTokenizerFast.from_pretrained(folder)
    else:
        tokenizer = learn_tokenizer(texts, vocabulary=config.vocabulary or 0, max_tokens=config.max_tokens)
        partial = work / f"{TOKENIZER}.partial"
        tokenizer.save_pretrained(partial)
        partial.rename(folder)
    sizes = {
        "hidden_size": config.hidden,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "intermediate_size": 4 * (config.hidden or 0),
    }
    transformers.set_seed(config.seed)
    model = transformers.BertForMaskedLM(
        transformers.BertConfig(
            vocab_size=len(tokenizer),
            max_position_embeddings=config.max_tokens,
            pad_token_id=tokenizer.pad_token_id,
            hidden_dropout_prob=config.dropout,
            attention_probs_dropout_prob=0.0,  # attention that drops its own weights has no fast kernel
            **sizes,
        )
    )
    return MaskedModel(model.eval(), tokenizer, has_head=False)


def _announce(config: PretrainConfig, masked: MaskedModel, learning: Learning, before: PseudoPerplexity) -> None:
    weights = sum(parameter.numel() for parameter in masked.model.parameters())
    if config.from_scratch:
        start = f"from scratch: {len(masked.tokenizer)} word pieces, {config.layers} layers of {config.hidden}"
    elif masked.has_head:
        start = f"base {config.base!r} has a masked-language-model head, which goes on learning"
    else:
        start = (
            f"base {config.base!r} has no masked-language-model head: a new one starts at random, "
            "its decoder tied to the word embeddings"
        )
    print(f"{start}; {weights:,} weights", file=sys.stderr)
    print(
        f"{len(learning.tokens)} texts of {learning.tokens.lengths.mean():.1f} tokens, {learning.steps_a_pass} steps "
        f"an epoch; held-out pseudo-perplexity before: {before.value:.1f} ({before.tokens} tokens)",
        file=sys.stderr,
    )


def _held_out(
    config: PretrainConfig, texts: Sequence[str], tokenizer: Any, *, max_tokens: int
) -> tuple[Tokens, list[str]]:
    """Return the texts whose masked loss is followed, tokenized, and those whose pseudo-perplexity is measured."""
    known = Tokens.of(texts, tokenizer, max_tokens=max_tokens).with_words()
    if not len(known):
        raise DataError(
            f"base model {config.base!r}: its tokenizer knows no word of the {len(texts)} held-out texts; "
            "name another --base, or hold out more with --held-out"
        )
    some = [texts[i] for i in known]
    return Tokens.of(some[:WATCHED], tokenizer, max_tokens=max_tokens), some[: config.measured]


def _figures(measured: PseudoPerplexity) -> dict[str, Any]:
    return {"value": measured.value, "texts": len(measured.texts), "tokens": measured.tokens}


def _fingerprint(texts: Sequence[str]) -> dict[str, Any]:
    return {"count": len(texts), "sha256": hashlib.sha256(json.dumps(list(texts)).encode()).hexdigest()}


def _open_work(work: Path, run: dict[str, Any], *, resume: bool) -> None:
    """Prepare the folder of a run: empty, or as an unfinished run of the same settings and texts left it."""
    record = work / RUN
    if resume and record.is_file():
        before = json.loads(record.read_bytes())
        compared = {"base_model": "files of the base model", "texts": "texts"}
        differing = [f"the {name} differ" for key, name in compared.items() if before.get(key) != run[key]]
        check_same(work, before["config"], run["config"], differing=differing)
        if not (work / STATE).is_file():
            print("resuming from the start", file=sys.stderr)
        return
    if resume:
        print("no unfinished run to resume; starting anew", file=sys.stderr)
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    write_record(work, run, name=RUN)


def _read_state(work: Path) -> dict[str, Any] | None:
    """Return the last whole state of a run, if there is one."""
    file = work / STATE
    return torch.load(file, weights_only=True) if file.is_file() else None


def _write_state(work: Path, learning: Learning, state: dict[str, Any]) -> None:
    """Put a state in the place of the last one, in one step: a kill at any moment leaves one of the two."""
    partial = work / f"{STATE}.partial"
    with partial.open("wb") as file:
        torch.save(state | learning.snapshot(), file)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(work / STATE)
