"""What did predicting masked words teach? Guesses, scores of sentences, and what further pretraining is worth."""

from __future__ import annotations

import csv
import io
import math
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from inference import artifact
from inference.errors import InputError
from training.base import fingerprint_of, load_config, longest_input
from training.checkpoint import load_tokenizer
from training.corpus import read_corpus
from training.data import Row, check_known, check_trainable, fingerprint, label_names, read_rows
from training.errors import DataError
from training.settings import TrainConfig
from training.study.curves import Curves, middle, resamples, unpack
from training.study.guessing import CONTEXTS, SHOWN, WHOLE, Hidden, rank_words
from training.study.mask_page import AFTER, BEFORE, report
from training.study.plan import BATCH, Plan, pace, run_cost, spread
from training.study.run import Run, clock
from training.study.starts import fit_one, nested
from training.study.words import FIRST, STOP, Words
from training.wording import counted

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from training.masked import MaskedModel

__all__ = ["report", "study"]

SCORES = "scores.csv"
MOST_WORDS = 2000  # hidden, one a sentence
MOST_SENTENCES = 50_000  # in which words are counted, and of which some are hidden
PROBED = 8  # sentences by which the time of all others is told
SCORING = 0.5  # share of the time for what needs no labels, where there are some
RESERVE = 0.7  # of the time that is left, what is planned to be used: other programs come and go
GUESSING = 0.25  # of that, what hidden words may take: scores take the rest
EXAMPLES = 8  # hidden words whose guesses are shown
EXTREMES = 8  # sentences shown as most and least expected
FEWEST_TOKENS = 4  # of a sentence that is shown as such
EPOCHS = 8  # over the largest number of rows; over few rows more (`Plan.passes`)


def study(
    model: str,
    corpus: Path,
    out: Path,
    *,
    against: str | None = None,
    guesses: Sequence[str] = (),
    labelled: Path | None = None,
    test: Path | None = None,
    seeds: int = 3,
    max_tokens: int = 128,
    text_column: str = "text",
    label_column: str = "label",
    seed: int = 0,
    minutes: float | None = None,
    resume: bool = False,
) -> dict[str, Any]:
    """
    Measure how well a masked language model knows a corpus, and whether knowing it better helps a classifier.

    Args:
        model: A base model with a masked-language-model head.
        corpus: `.txt` with a sentence a line, or a file with a column of sentences.
        out: Folder of the study.
        against: Another one, for example the same after further pretraining.
        guesses: Texts with `[MASK]` in the place of a word.
        labelled: Rows to fine-tune both models on.
        test: Rows to measure the classifiers on.
        seeds: Classifiers of each model and number of rows.
        max_tokens: Longer sentences are cut.
        text_column: Column of the sentence, in all files.
        label_column: Column of the label.
        seed: Draws sentences, words and rows.
        minutes: How long it may take; fewer sentences and rows are used where they do not fit.
        resume: Go on with the unfinished study.

    Returns:
        What study.json holds.

    Raises:
        BaseModelError: a model cannot be had, or has no head to guess with.
        DataError: a file cannot be read, or holds no word to guess.
        InputError: options that do not go together, or a text without `[MASK]`.
    """
    names = {BEFORE: model} | ({AFTER: against} if against is not None else {})
    _check(names, labelled, test, seeds)
    models = _Models(names)
    for name in names:
        models.load(name)  # one without a head is told before anything is measured
    texts = read_corpus([corpus], text_column=text_column)
    rows, judged = _read_labelled(labelled, test, text_column, label_column) if labelled and test else ([], [])
    asked = {name: [_answers(models.load(name), text) for text in guesses] for name in names}
    settings = {
        "model": model,
        "against": against,
        "weights": {name: fingerprint_of(source) for name, source in names.items()},
        "corpus": {"file": corpus.name, **fingerprint([Row(text, ()) for text in texts])},
        "guesses": list(guesses),
        "labelled": fingerprint(rows) | {"file": labelled.name} if labelled else None,
        "test": fingerprint(judged) | {"file": test.name} if test else None,
        "seeds": seeds,
        "max_tokens": max_tokens,
        "seed": seed,
    }
    with Run.open("mask", out, settings, minutes=minutes, resume=resume) as run:
        share = SCORING if rows else 1.0
        plan = run.measure("plan", lambda: _plan(models, texts, max_tokens, share * run.left, seed))
        if plan["scored"] < len(texts):
            run.say(f"{plan['scored']:,} of {len(texts):,} sentences, which is what fits the time")
        chosen = [texts[i] for i in plan["chosen"]]
        known = [texts[i] for i in _sample(len(texts), seed)]
        words, hidden = _hide(models, known, corpus, most=plan["words"], max_tokens=max_tokens, seed=seed)
        run.expect(len(names) * (len(chosen) + plan["words"]))
        guessed = {name: _guessed(run, models, words, hidden, name) for name in names}
        scores = {
            name: run.measure(f"{name}, scores", partial(_scored, run, models, chosen, name, max_tokens))
            for name in names
        }
        result = {
            "sentences": {
                "read": len(texts),
                "counted": len(known),
                "scored": len(chosen),
                "guessed": len(hidden.sentences),
            },
            **_vocabularies(models, words, hidden),
            "guesses": {name: _without_examples(parts) for name, parts in guessed.items()},
            "examples": _told_examples(hidden, known, guessed),
            "asked": [
                {"text": text} | {name: answers[number] for name, answers in asked.items()}
                for number, text in enumerate(guesses)
            ],
            "perplexity": _perplexities(scores, seed, same=models.have_one_vocabulary),
            "expected": {name: _extremes(chosen, scores[name]) for name in names},
            "classifier": _classified(run, names, rows, judged, seed, seeds, max_tokens) if rows else None,
        }
        return run.finish(result, report, files={SCORES: _table(chosen, scores)})


def _hide(
    models: _Models, texts: Sequence[str], corpus: Path, *, most: int, max_tokens: int, seed: int
) -> tuple[dict[str, Words], Hidden]:
    """Return the words of the sentences, as each model's tokenizer splits them, and those that are hidden."""
    words = {
        name: Words.of(texts, tokenizer, max_tokens=models.longest(name, max_tokens))
        for name, tokenizer in models.tokenizers.items()
    }
    hidden = Hidden.draw(list(words.values()), most=most, seed=seed)
    if not len(hidden.sentences):
        raise DataError(
            f"{corpus}: holds no word that is one piece of the vocabulary; expected sentences of such words"
        )
    return words, hidden


def _vocabularies(models: _Models, words: Mapping[str, Words], hidden: Hidden) -> dict[str, Any]:
    """Return what the models' vocabularies make of the words."""
    return {
        "vocabulary": {name: len(tokenizer) for name, tokenizer in models.tokenizers.items()},
        "same_vocabulary": models.have_one_vocabulary,
        "one_piece": {
            name: float((part.uses[:, STOP] - part.uses[:, FIRST] == 1).mean()) for name, part in words.items()
        },
        "frequent": list(hidden.frequent),
        "frequency": {"ranks": hidden.ranks.tolist(), "classes": hidden.classes()},
    }


def _guessed(run: Run, models: _Models, words: Mapping[str, Words], hidden: Hidden, name: str) -> dict[str, Any]:
    """Return what a model makes of the hidden words, by how much of the sentence it sees."""
    return {
        context: run.measure(f"{name}, {context}", partial(_ranked, run, models, words, hidden, name, context))
        for context in CONTEXTS
    }


def _without_examples(parts: Mapping[str, Any]) -> dict[str, Any]:
    return {context: {key: value[key] for key in ("ranks", "log_probabilities")} for context, value in parts.items()}


def _told_examples(hidden: Hidden, texts: Sequence[str], guessed: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return some hidden words in their sentences, with the guesses of every model."""
    return [
        {"sentence": hidden.marked(i, texts[int(hidden.sentences[i])]), "word": hidden.words[i]}
        | {name: parts[WHOLE]["examples"][place] for name, parts in guessed.items()}
        for place, i in enumerate(_examples(hidden))
    ]


def _check(names: Mapping[str, str], labelled: Path | None, test: Path | None, seeds: int) -> None:
    for source in names.values():
        if Path(source, artifact.MANIFEST).is_file():
            raise InputError(
                f"{source}: is a classifier, which lost the head that guesses words; name what it was fine-tuned from"
            )
    if (labelled is None) != (test is None):
        raise InputError("--labelled and --test go together: rows to learn from, and rows to measure on")
    if labelled and AFTER not in names:
        raise InputError("--labelled compares classifiers of two models; name the other one with --against")
    if not 2 <= seeds <= 100:
        raise InputError(f"--seeds is {seeds}; expected a whole number from 2 to 100")


def _read_labelled(labelled: Path, test: Path, text_column: str, label_column: str) -> tuple[list[Row], list[Row]]:
    rows = read_rows(labelled, text_column=text_column, label_column=label_column)
    check_trainable(rows, labelled)
    judged = read_rows(test, text_column=text_column, label_column=label_column)
    check_known(judged, label_names(rows), test)
    return rows, judged


class _Models:
    """The masked language models; the last one used stays loaded."""

    def __init__(self, names: Mapping[str, str]) -> None:
        self.names = names
        self.tokenizers = {name: load_tokenizer(source) for name, source in names.items()}
        self._name = ""
        self._loaded: MaskedModel | None = None

    @property
    def have_one_vocabulary(self) -> bool:
        """Whether all split texts into the same pieces, with the same ids."""
        return len({tuple(sorted(tokenizer.get_vocab().items())) for tokenizer in self.tokenizers.values()}) == 1

    def longest(self, name: str, max_tokens: int) -> int:
        """Return where a model's sentences are cut: at `max_tokens`, or where its positions end."""
        return min(max_tokens, longest_input(load_config(self.names[name])))

    def load(self, name: str) -> MaskedModel:
        """Return the model of a name."""
        from training.base import quiet_transformers
        from training.masked import MaskedModel

        if self._loaded is None or self._name != name:
            quiet_transformers()
            self._loaded, self._name = MaskedModel.load(self.names[name]), name
        return self._loaded


def _answers(masked: MaskedModel, text: str) -> list[list[tuple[str, float]]]:
    """Return the first guesses for each blank of a text."""
    return [[(guess.token, guess.probability) for guess in blank.guesses] for blank in masked.guesses(text, SHOWN)]


def _plan(models: _Models, texts: Sequence[str], max_tokens: int, seconds: float, seed: int) -> dict[str, Any]:
    """Choose how many sentences are scored and how many words hidden, by how long a few sentences take."""
    order = np.random.default_rng(seed).permutation(len(texts))
    scored, words = len(texts), min(len(texts), MOST_WORDS)
    if seconds < math.inf:
        masked = models.load(BEFORE)
        probe = [texts[i] for i in order[:PROBED]]
        _likelihoods(masked, probe[:1], max_tokens)  # the first call is slower than those that follow
        started = time.monotonic()
        tokens = sum(count for _, count in _likelihoods(masked, probe, max_tokens))
        each = (time.monotonic() - started) / max(1, tokens)  # a token: one row through the model
        room = RESERVE * seconds / (each * len(models.names))  # rows
        words = min(words, max(50, int(GUESSING * room / len(CONTEXTS))))
        scored = min(scored, max(50, int((room - words * len(CONTEXTS)) / (max(1, tokens) / len(probe)))))
    return {"words": words, "scored": scored, "chosen": np.sort(order[:scored]).tolist()}


def _sample(count: int, seed: int) -> list[int]:
    """Return which sentences words are counted in and drawn from: all, or of a large corpus as many as fit memory."""
    chosen: list[int] = np.sort(np.random.default_rng([seed, 1]).permutation(count)[:MOST_SENTENCES]).tolist()
    return chosen


def _ranked(
    run: Run, models: _Models, words: Mapping[str, Words], hidden: Hidden, name: str, context: str
) -> dict[str, Any]:
    ranks: list[int] = []
    logs: list[float] = []
    guesses: list[Any] = []
    for some, values, first in rank_words(models.load(name), words[name], hidden, context):
        ranks, logs, guesses = ranks + some, logs + values, guesses + first
        run.advance(len(some) / len(CONTEXTS), "hidden words")
    examples = [guesses[i] for i in _examples(hidden)] if context == WHOLE else []
    return {"ranks": ranks, "log_probabilities": logs, "examples": examples}


def _examples(hidden: Hidden) -> list[int]:
    """Return which hidden words are shown: spread over all of them, the more telling words of lower frequency first."""
    rare = [i for i, rank in enumerate(hidden.ranks.tolist()) if rank > 10] or list(range(len(hidden.ranks)))
    return [rare[i * len(rare) // min(EXAMPLES, len(rare))] for i in range(min(EXAMPLES, len(rare)))]


def _scored(run: Run, models: _Models, texts: Sequence[str], name: str, max_tokens: int) -> list[tuple[float, int]]:
    scores: list[tuple[float, int]] = []
    for at in range(0, len(texts), 50):
        part = texts[at : at + 50]
        scores += _likelihoods(models.load(name), part, max_tokens)
        run.advance(len(part), "scores of sentences")
    return scores


def _likelihoods(masked: MaskedModel, texts: Sequence[str], max_tokens: int) -> list[tuple[float, int]]:
    """Return pseudo-log-likelihood and number of tokens of each text (Salazar et al. 2020, arXiv:1910.14659)."""
    from training.masked import pseudo_perplexity

    size = min(max_tokens, masked.tokenizer.model_max_length)
    found = pseudo_perplexity(masked.model, masked.tokenizer, texts, max_tokens=size)
    return [(round(text.total, 5), len(text.tokens)) for text in found.texts]


def _perplexities(scores: Mapping[str, Sequence[tuple[float, int]]], seed: int, *, same: bool) -> dict[str, Any]:
    """Return pseudo-perplexities with 95 % intervals over sentences, and the ratio of two over the same ones."""
    tables = {name: np.asarray(values, dtype=np.float64) for name, values in scores.items()}
    count = len(next(iter(tables.values())))

    def surprise(totals: Any) -> Any:
        return -totals[..., 0] / np.maximum(1, totals[..., 1])  # natural logarithm of the pseudo-perplexity

    joint = np.concatenate(list(tables.values()), axis=1)
    totals = np.concatenate([drawn @ joint for drawn in resamples(count, seed)])  # the same sentences for both
    resampled = {name: surprise(totals[:, 2 * i : 2 * i + 2]) for i, name in enumerate(tables)}
    found: dict[str, Any] = {
        name: {
            "value": math.exp(surprise(table.sum(axis=0))),
            "interval": [math.exp(end) for end in middle(resampled[name])],
            "tokens": int(table[:, 1].sum()),
        }
        for name, table in tables.items()
    }
    if same and AFTER in tables:
        difference = surprise(tables[AFTER].sum(axis=0)) - surprise(tables[BEFORE].sum(axis=0))
        ends = middle(resampled[AFTER] - resampled[BEFORE])
        found["ratio"] = {"value": math.exp(difference), "interval": [math.exp(end) for end in ends]}
    return found


def _extremes(texts: Sequence[str], scores: Sequence[tuple[float, int]]) -> dict[str, list[tuple[str, float]]]:
    """Return the sentences of the lowest and of the highest pseudo-perplexity."""
    values = [
        (math.exp(min(-total / count, 700.0)), text)
        for text, (total, count) in zip(texts, scores, strict=True)
        if count >= FEWEST_TOKENS
    ]
    values.sort()
    most, least = values[:EXTREMES], values[::-1][:EXTREMES]
    return {"most": [(text, value) for value, text in most], "least": [(text, value) for value, text in least]}


def _table(texts: Sequence[str], scores: Mapping[str, Sequence[tuple[float, int]]]) -> str:
    """Return the scores of all sentences as CSV."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    several = len(scores) > 1
    columns = ("tokens", "log_likelihood", "pseudo_perplexity")
    writer.writerow(["text", *(f"{name} {column}" if several else column for name in scores for column in columns)])
    for number, text in enumerate(texts):
        cells: list[Any] = [text]
        for values in scores.values():
            total, count = values[number]
            cells += [count, f"{total:.4f}", f"{math.exp(min(-total / count, 700.0)):.4f}" if count else ""]
        writer.writerow(cells)
    return file.getvalue()


def _classified(
    run: Run, names: Mapping[str, str], rows: list[Row], judged: list[Row], seed: int, seeds: int, max_tokens: int
) -> dict[str, Any]:
    """
    Fine-tune both models on the same rows in the same way, from few rows to as many as fit the time.

    Every seed draws rows and starts the classifier; both models get the same.
    """
    from training.study.pool import Pool

    full = len(rows)
    labels = len(label_names(rows))
    smallest = min(full, max(2 * labels, min(50, max(2, full // 8))))
    sizes = spread(smallest, full, 4) if full >= 4 * smallest else (smallest, full) if full > smallest else (full,)
    plan = Plan(sizes, EPOCHS, 0, 0.0)
    orders = {number: nested(rows, seed=number) for number in range(seed, seed + seeds)}
    config = TrainConfig(max_tokens=max_tokens, consistency=0.0, soft_labels=0.0, batch_size=BATCH)
    right: dict[int, dict[str, list[str]]] = {}
    if run.left <= 0 and "pace" not in run.known:
        run.say("no time for classifiers")
        sizes = ()
    with Pool() as pool:
        timed = replace(config, base=names[BEFORE])
        speed = run.measure("pace", lambda: pace(pool, timed, rows, judged)) if sizes else {}
        each = {size: run_cost(plan, size, speed, len(judged)) / speed["processes"] for size in sizes}
        run.expect(sum(each.values()) * len(names) * seeds)
        for size in sizes:
            tasks = {
                (name, number): f"classifier of {name}, {size} rows, seed {number}"
                for number in orders
                for name in names
            }
            open_ = [key for key, label in tasks.items() if label not in run.known]
            if open_ and each[size] * len(open_) > run.left:
                run.say(
                    f"no time for classifiers of {counted(size, 'row')}, which would take about "
                    f"{clock(each[size] * len(open_))}"
                )
                break
            run.advance(each[size] * (len(tasks) - len(open_)), f"classifiers of {counted(size, 'row')}")
            arguments = [
                (
                    replace(config, base=names[name], epochs=plan.passes(size), seed=number),
                    [rows[i] for i in orders[number][:size]],
                    judged,
                )
                for name, number in open_
            ]
            for i, value in pool.run(fit_one, arguments):
                run.keep(tasks[open_[i]], value)
                run.advance(each[size], tasks[open_[i]])
            right[size] = {name: [run.known[tasks[name, number]]["right"] for number in orders] for name in names}
            means = {name: np.mean([run.known[tasks[name, number]]["accuracy"] for number in orders]) for name in names}
            run.say(f"{counted(size, 'row')}: accuracy {', '.join(f'{means[name]:.3f} {name}' for name in names)}")
    reached = tuple(right)
    cube = [[[unpack(one, len(judged)) for one in right[size][name]] for size in reached] for name in names]
    curves = Curves(
        tuple(names), reached, np.asarray(cube, dtype=np.float32).reshape(len(names), len(reached), seeds, len(judged))
    )
    accuracy, resampled = curves.accuracy, curves.resampled(seed)
    after, before = curves.starts.index(AFTER), curves.starts.index(BEFORE)
    return {
        "rows": full,
        "test_rows": len(judged),
        "labels": labels,
        "seeds": list(orders),
        "sizes": list(reached),
        "steps": {str(size): plan.steps(size) for size in reached},
        "left_out": [size for size in plan.sizes if size not in right],
        "accuracy": {
            name: [
                {
                    "mean": float(accuracy[i, j].mean()),
                    "interval": middle(resampled[:, i, j]),
                    "by_seed": accuracy[i, j].tolist(),
                }
                for j in range(len(reached))
            ]
            for i, name in enumerate(names)
        },
        "gain": [
            {
                "value": float(accuracy[after, j].mean() - accuracy[before, j].mean()),
                "interval": middle(resampled[:, after, j] - resampled[:, before, j]),
            }
            for j in range(len(reached))
        ],
    }
