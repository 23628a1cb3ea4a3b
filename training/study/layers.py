"""Where does fine-tuning change the weights? Drift by layer, likeness of representations, and layers rolled back."""

from __future__ import annotations

import time
from collections import Counter
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from inference.errors import InputError
from training.compare import mcnemar
from training.data import check_known, fingerprint, read_rows
from training.metrics import accuracy_change
from training.study.batches import Batches, Score, some
from training.study.cka import cka_grid
from training.study.ends import Ends, shared
from training.study.layers_page import report
from training.study.parts import MODULES, TABLES, UNMOVED, blocks, drift, rollbacks, rolled_back
from training.study.run import Run
from training.wording import counted

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from training.data import Row

FEWEST_ROWS = 32  # that are measured on, however little time there is
PILOT_ROWS = 64  # whose time tells how many can be measured on
ROLLING = 0.8  # share of the time for the roll-backs; the rest is for all else
ALIKE_ROWS = 1000  # whose representations are compared
ALIKE_TOKENS = 4096  # of these, drawn evenly
SHOWN_TYPES = 30


def study(
    model: Path,
    data: Path,
    out: Path,
    *,
    train: Path | None = None,
    base: str | None = None,
    minutes: float | None = None,
    seed: int = 0,
    text_column: str = "text",
    label_column: str = "label",
    resume: bool = False,
) -> dict[str, Any]:
    """
    Compare a fine-tuned model with its start, layer by layer, and write the folder of the study.

    Args:
        model: A model folder with its checkpoint, or a checkpoint.
        data: Labelled rows to measure on, which it did not learn from.
        out: Becomes the folder of the study.
        train: Rows it learnt from, to count words in; by default the file that its record names, if it is there.
        base: What it was fine-tuned from, where no record says.
        minutes: How long it may take: decides how many rows are measured on.
        seed: Of the rows and tokens that are drawn; and of the start's head, where no record says.
        text_column: Column of the sentence.
        label_column: Column of the label.
        resume: Go on with the unfinished study of the same `out`.

    Returns:
        What study.json holds.

    Raises:
        ArtifactError, BaseModelError: the model or its start cannot be had.
        DataError: a file cannot be read, or has labels that the model does not know.
    """
    ends = Ends.open(model, base=base, seed=seed)
    rows = read_rows(data, text_column=text_column, label_column=label_column, multi_label=ends.multi_label)
    check_known(rows, ends.end.labels, data, model=model)
    if len(rows) < 4:
        raise InputError(f"{data}: has {counted(len(rows), 'row')}; expected at least 4 to measure on")
    learnt = ends.learnt_rows(train, text_column=text_column, label_column=label_column)
    settings = {
        "model": str(model),
        "data": str(data),
        "base": ends.config.base,
        "seed": seed,
        "weights": ends.fingerprint(),
        "rows": fingerprint(rows),
        "learnt": fingerprint(learnt[0]) if learnt else None,
    }
    with Run.open("layers", out, settings, minutes=minutes, resume=resume) as run:
        backs = rollbacks(ends.end.model.config.num_hidden_layers)
        count = run.measure("rows", lambda: _affordable(run, ends, rows, len(backs)))
        chosen = some(rows, count, seed=seed)
        if len(chosen) < len(rows):
            run.say(f"{len(chosen)} of {counted(len(rows), 'row')} are measured on, so as to keep the time")
        batches = Batches.of(chosen, ends.end)

        run.expect(len(backs) + 2)
        result: dict[str, Any] = {"model": ends.describe() | {"layer_decay": ends.config.layer_decay}}
        result["rows"] = {
            "given": len(rows),
            "measured": len(chosen),
            "shared": shared(rows, learnt[0]) if learnt else None,
        }
        result["drift"] = run.measure("drift", lambda: _drift(ends))
        result["types"] = run.measure("types", lambda: _types(ends, learnt, rows))
        result["alike"] = run.measure("alike", lambda: _alike(ends, chosen, seed))
        run.advance(2, "drift and likeness of representations")
        scores = {}
        for name, back in backs.items():
            scores[name] = run.measure(f"rolled back: {name}", partial(_score, ends, batches, back))
            run.advance(1, f"rolled back: {name}")
        result["rollbacks"] = [_against(scores["nothing"], name, back, scores[name]) for name, back in backs.items()]
        return run.finish(result, report)


def _affordable(run: Run, ends: Ends, rows: Sequence[Row], times: int) -> int:
    """Return how many rows can be scored so many times in the time that is left."""
    if run.minutes is None:
        return len(rows)
    pilot = Batches.of(some(rows, PILOT_ROWS, seed=0), ends.end)
    pilot.logits(ends.end.model)  # the first is slower
    started = time.monotonic()
    pilot.logits(ends.end.model)
    each = (time.monotonic() - started) / len(pilot.rows)
    return min(len(rows), max(FEWEST_ROWS, int(ROLLING * run.left / (each * times))))


def _drift(ends: Ends) -> list[dict[str, Any]]:
    found = drift(ends.start, ends.end.model)
    return [
        {"block": block, "module": module, "drift": value}
        for block in blocks(ends.end.model)
        for module in (*TABLES, *MODULES, "all")
        if (value := found.get((block, module))) is not None
    ]


def _types(ends: Ends, learnt: tuple[Sequence[Row], bool] | None, rows: Sequence[Row]) -> dict[str, Any] | None:
    """Return which rows of the embedding matrix moved most, by length of the change over the length before."""
    before = ends.start.get_input_embeddings().weight.detach().double()
    after = ends.end.model.get_input_embeddings().weight.detach().double()
    sizes = before.norm(dim=1)
    moved = torch.where(sizes > 0, (after - before).norm(dim=1) / sizes.clamp_min(1e-12), torch.zeros_like(sizes))
    if float(moved.max()) < UNMOVED:
        return None
    tokenizer = ends.end.tokenizer

    def count(some_rows: Sequence[Row]) -> Counter[int]:
        texts = [row.text for row in some_rows]
        return Counter(chain.from_iterable(tokenizer(texts, truncation=True, max_length=ends.end.max_tokens).input_ids))

    in_learnt, in_data = (count(learnt[0]) if learnt else None), count(rows)
    told = {} if in_learnt is None else _by_presence(moved.numpy(), in_learnt)
    names = tokenizer.convert_ids_to_tokens(range(len(moved)))
    top = [
        {
            "type": names[i],
            "drift": float(moved[i]),
            "learnt": None if in_learnt is None else in_learnt[i],
            "data": in_data[i],
        }
        for i in moved.argsort(descending=True)[:SHOWN_TYPES].tolist()
    ]
    return {"types": len(moved), "top": top, "learnt_is_exact": bool(learnt and learnt[1])} | told


def _by_presence(moved: NDArray[np.float64], counts: Counter[int]) -> dict[str, Any]:
    seen = np.zeros(len(moved), dtype=bool)
    seen[list(counts)] = True
    parts = (("seen", moved[seen]), ("unseen", moved[~seen]))
    return {name: {"types": len(part), "drift": float(part.mean()) if len(part) else None} for name, part in parts}


def _alike(ends: Ends, rows: Sequence[Row], seed: int) -> dict[str, Any]:
    """Return the CKA of the representations of each layer at the start with those of each at the end."""
    batches = Batches.of(some(rows, ALIKE_ROWS, seed=seed), ends.end)
    special = np.array(ends.end.tokenizer.all_special_ids)
    words = sum(int((~np.isin(ids, special)).sum()) for ids in batches.ids)
    generator = np.random.default_rng(seed)
    kept = np.zeros(words, dtype=bool)
    kept[generator.permutation(words)[:ALIKE_TOKENS]] = True
    found = {}
    for name, model in (("start", ends.start), ("end", ends.end.model)):
        found[name] = _representations(model, batches, special, kept, mean=ends.config.pooling == "mean")
    grids: dict[str, Any] = {}
    for kind in ("tokens", "sentences"):
        one, other = found["start"][kind], found["end"][kind]
        things = len(one[0])
        if things < 4:
            grids[kind] = None
            continue
        grid = cka_grid(one, other)
        grids[kind] = {
            "things": things,
            "grid": [[float(value) if np.isfinite(value) else None for value in line] for line in grid],
        }
    return grids


def _representations(
    model: Any, batches: Batches, special: NDArray[np.int64], kept: NDArray[np.bool_], *, mean: bool
) -> dict[str, list[NDArray[np.float32]]]:
    """Return the token vectors that are kept, and a vector of each sentence, after the embeddings and every layer."""
    tokens: list[list[NDArray[np.float32]]] = []
    sentences: list[list[NDArray[np.float32]]] = []
    place = 0
    with torch.inference_mode():
        for _, inputs in batches:
            mask = inputs["attention_mask"].bool()
            is_word = mask & ~torch.from_numpy(np.isin(inputs["input_ids"].numpy(), special))
            chosen = kept[place : place + int(is_word.sum())]
            place += int(is_word.sum())
            states = model(**inputs, output_hidden_states=True).hidden_states  # one (batch, tokens, hidden) a layer
            tokens.append([state[is_word].numpy()[chosen] for state in states])
            weights = (mask / mask.sum(dim=1, keepdim=True)).unsqueeze(-1)
            sentences.append([((state * weights).sum(dim=1) if mean else state[:, 0]).numpy() for state in states])
    return {
        "tokens": [np.concatenate(layer) for layer in zip(*tokens, strict=True)],
        "sentences": [np.concatenate(layer) for layer in zip(*sentences, strict=True)],
    }


def _score(ends: Ends, batches: Batches, back: Sequence[str]) -> dict[str, Any]:
    score: Score = batches.score(batches.logits(rolled_back(ends.start, ends.end.model, back)))
    return score.to_json() | {"right": "".join("01"[int(right)] for right in score.right)}


def _against(untouched: Mapping[str, Any], name: str, back: Sequence[str], score: Mapping[str, Any]) -> dict[str, Any]:
    """Hold a roll-back against the model that is untouched, on the same rows."""
    before, after = (np.array([mark == "1" for mark in one["right"]]) for one in (untouched, score))
    change, low, high = accuracy_change(before, after)
    return {
        "name": name,
        "back": list(back),
        "loss": score["loss"],
        "accuracy": score["accuracy"],
        "change": {"value": change, "low": low, "high": high},
        "p": mcnemar(int((before & ~after).sum()), int((after & ~before).sum())),
    }
