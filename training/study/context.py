"""Is there a vector for each token? How much the vectors of a word differ from use to use, layer by layer."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from inference.errors import InputError
from training.base import longest_input
from training.checkpoint import load_tokenizer
from training.corpus import read_corpus
from training.data import Row, fingerprint
from training.errors import DataError
from training.study.context_page import report
from training.study.contextuality import CONTEXTS, POOL, Drawn, measure, unit
from training.study.run import Run
from training.study.subject import PRETRAINED, RANDOM, TUNED, Subject, load_encoder, random_twin
from training.study.words import KIND, SENTENCE, Words, layer_names, vectors
from training.wording import counted

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


__all__ = ["report", "study"]

NEIGHBOURS = 5  # of a use that was asked for
PROBED = 64  # sentences by which the time of all others is told
RESERVE = 0.6  # share of the time that running sentences may take: the rest is for what is computed of them


def study(
    model: str,
    corpus: Path,
    out: Path,
    *,
    base: str | None = None,
    uses: Sequence[str] = (),
    max_tokens: int = 128,
    text_column: str = "text",
    seed: int = 0,
    minutes: float | None = None,
    resume: bool = False,
) -> dict[str, Any]:
    """
    Measure how context dependent the vectors of words are: of a base, what was fine-tuned from it, and random weights.

    Follows Ethayarajh 2019 (arXiv:1909.00512).

    Args:
        model: Model folder, fine-tuned checkpoint, or base model.
        corpus: `.txt` with a sentence a line, or a file with a column of sentences.
        out: Folder of the study.
        base: What the model was fine-tuned from, where it does not say so itself.
        uses: Sentences with one word between asterisks, whose nearest uses in the corpus are looked for.
        max_tokens: Longer sentences are cut.
        text_column: Column of the sentence.
        seed: Draws sentences, uses and the weights of the random twin.
        minutes: How long it may take; fewer sentences are read where they do not fit.
        resume: Go on with the unfinished study.

    Returns:
        What study.json holds.

    Raises:
        BaseModelError, ArtifactError: the model or its base cannot be had.
        DataError: the corpus cannot be read, or no word is in five sentences of it.
        InputError: a use has no marked word, or not one.
    """
    subject = Subject.of(model, base=base)
    wanted = [_Wanted.of(text) for text in uses]
    texts = read_corpus([corpus], text_column=text_column)
    tokenizer = load_tokenizer(subject.checkpoint or subject.base)
    encoders = _Encoders(subject, seed)
    size = min(max_tokens, longest_input(encoders.config))
    queries = [use.found(tokenizer, size) for use in wanted]
    settings = {
        "model": model,
        "base": subject.base,
        "start": subject.start,
        "weights": subject.fingerprint(),
        "corpus": {"file": corpus.name, **fingerprint([Row(text, ()) for text in texts])},
        "uses": list(uses),
        "max_tokens": max_tokens,
        "seed": seed,
    }
    with Run.open("context", out, settings, minutes=minutes, resume=resume) as run:
        plan = run.measure("sentences", lambda: _plan(encoders, tokenizer, texts, size, run, seed))
        words = Words.of([texts[i] for i in plan["chosen"]], tokenizer, max_tokens=size)
        if plan["used"] < plan["read"]:
            run.say(f"{plan['used']:,} of {plan['read']:,} sentences, which is what fits the time")
        drawn = Drawn.of(words, values=len(layer_names(encoders.layers)) * encoders.config.hidden_size, seed=seed)
        if not len(drawn.kinds):
            raise DataError(
                f"{corpus}: no word is used in {CONTEXTS} of {counted(len(words.ids), 'sentence')}; "
                "expected sentences that share words"
            )
        if not drawn.is_measurable(words):
            raise DataError(
                f"{corpus}: no sentence has two words, or no word is one piece of the vocabulary of {subject.base}; "
                "expected sentences in a language that it knows"
            )
        run.expect(len(encoders.names) * len(words.ids))
        result = {
            "sentences": {key: plan[key] for key in ("read", "used")},
            "vocabulary": {"size": encoders.config.vocab_size, "hidden": encoders.config.hidden_size},
            "layers": layer_names(encoders.layers),
            "words": _told_words(words, drawn),
            "weights": {name: _of_weights(run, encoders, words, drawn, name) for name in encoders.names},
            "nearest": [
                _asked_use(run, encoders, words, text, query) for text, query in zip(uses, queries, strict=True)
            ],
        }
        return run.finish(result, report)


def _told_words(words: Words, drawn: Drawn) -> dict[str, Any]:
    """Return which words are measured, and how often each is used."""
    return {
        "kinds": len(words.names),
        "uses": len(words.uses),
        "enough": len(drawn.enough),
        "names": [words.names[kind] for kind in drawn.kinds],
        "kept": np.diff(drawn.starts).tolist(),
        "contexts": words.contexts()[drawn.kinds].tolist(),
    }


def _of_weights(run: Run, encoders: _Encoders, words: Words, drawn: Drawn, name: str) -> Any:
    """Return what is measured of one of the weights; what an earlier run measured counts as progress too."""
    known = name in run.known
    measured = run.measure(name, partial(_measure, encoders, words, drawn, run, name))
    if known:
        run.advance(len(words.ids), f"{name} weights")
    return measured


def _asked_use(run: Run, encoders: _Encoders, words: Words, text: str, query: Words) -> dict[str, Any]:
    """Return the uses that are nearest to one that was asked for, by every weights that have learnt."""
    return {"use": query.marked(0), "word": query.names[int(query.uses[0, KIND])]} | {
        name: run.measure(f"{name} {text}", partial(_nearest, encoders, name, query, words))
        for name in encoders.names
        if name != RANDOM
    }


class _Encoders:
    """The weights that are compared, each loaded when its turn comes."""

    def __init__(self, subject: Subject, seed: int) -> None:
        self.subject, self.seed = subject, seed
        self.names = [PRETRAINED, TUNED, RANDOM] if subject.checkpoint else [PRETRAINED, RANDOM]
        self._name, self._loaded = PRETRAINED, None
        # A fine-tuned model may have fewer layers than its base.
        self.config = load_encoder(subject.checkpoint or subject.base).config
        self.layers = int(self.config.num_hidden_layers)

    def load(self, name: str) -> Any:
        """Return the encoder of a name; the last one is kept."""
        if self._loaded is None or self._name != name:
            if name == RANDOM:
                self._loaded = random_twin(self.config, seed=self.seed)
            elif name == TUNED:
                self._loaded = load_encoder(self.subject.checkpoint or "")
            else:
                self._loaded = load_encoder(self.subject.base, layers=self.layers)
            self._name = name
        return self._loaded


def _plan(
    encoders: _Encoders, tokenizer: Any, texts: Sequence[str], max_tokens: int, run: Run, seed: int
) -> dict[str, Any]:
    """Choose as many sentences as fit the time, by how long a few of them take."""
    order = np.random.default_rng(seed).permutation(len(texts))
    count = len(texts)
    if run.left < float("inf"):
        probe = Words.of([texts[i] for i in order[:PROBED]], tokenizer, max_tokens=max_tokens)
        model = encoders.load(PRETRAINED)
        for _ in vectors(model, probe, np.arange(1)):  # the first call is slower than those that follow
            pass
        started = time.monotonic()
        for _ in vectors(model, probe):
            pass
        each = (time.monotonic() - started) / len(probe.ids)
        count = min(count, max(PROBED, int(RESERVE * run.left / (each * len(encoders.names)))))
    return {"read": len(texts), "used": count, "chosen": sorted(order[:count].tolist())}


def _measure(encoders: _Encoders, words: Words, drawn: Drawn, run: Run, name: str) -> dict[str, Any]:
    model = encoders.load(name)
    return measure(model, words, drawn, seed=encoders.seed, advance=lambda count: run.advance(count, f"{name} weights"))


@dataclass(frozen=True)
class _Wanted:
    """A use whose neighbours are asked for."""

    text: str
    start: int  # characters of the word
    end: int

    @classmethod
    def of(cls, marked: str) -> _Wanted:
        """
        Read a sentence with a word between asterisks.

        Raises:
            InputError: there is none, or more than one.
        """
        found = re.findall(r"\*([^*]+)\*", marked)
        if len(found) != 1 or marked.count("*") != 2 or not found[0].strip():
            raise InputError(f'--use {marked!r}: expected one word between asterisks, as in "at the *bank* counter"')
        start = marked.index("*")
        return cls(marked.replace("*", ""), start, start + len(found[0]))

    def found(self, tokenizer: Any, max_tokens: int) -> Words:
        """
        Return the sentence with this use alone.

        Raises:
            InputError: what is marked is not one word of the tokenizer, or is beyond the cut.
        """
        words = Words.of([self.text], tokenizer, max_tokens=max_tokens)
        inside = (words.uses[:, -2] < self.end) & (words.uses[:, -1] > self.start)
        if inside.sum() != 1:
            raise InputError(
                f"--use: {self.text[self.start : self.end]!r} in {self.text!r} is "
                f"{inside.sum() or 'no'} words as this tokenizer splits them; expected one"
            )
        return Words(words.texts, words.ids, words.pieces, words.names, words.uses[inside], words.pad_id)


def _nearest(encoders: _Encoders, name: str, query: Words, words: Words) -> dict[str, Any]:
    """Return the uses of the same word whose vectors in the highest layer are nearest to one that was asked for."""
    model = encoders.load(name)
    pieces = query.pieces[int(query.uses[0, KIND])]
    same = [kind for kind, others in enumerate(words.pieces) if others == pieces]
    sentences = np.unique(words.uses[np.isin(words.uses[:, KIND], same), SENTENCE])
    sentences = np.asarray(
        [i for i in sentences if words.texts[i].casefold() != query.texts[0].casefold()], dtype=np.int64
    )
    ((_, _, asked),) = vectors(model, query)
    direction = unit(asked[-1, 0])
    found = []
    for _, uses, states in vectors(model, words, sentences[:POOL]):
        for use, cosine in zip(uses, unit(states[-1]) @ direction, strict=True):
            if words.uses[use, KIND] in same:
                found.append((float(cosine), words.marked(int(use))))
    found.sort(reverse=True)
    return {
        "found": len(found),
        "mean": float(np.mean([cosine for cosine, _ in found])) if found else None,
        "uses": [[cosine, text] for cosine, text in found[:NEIGHBOURS]],
    }
