"""Pretraining: what is hidden, what is measured, what survives a kill, and what the weights are good for."""

from __future__ import annotations

import copy
import json
import math
import random
import shutil
import signal
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
import transformers

from inference import InputError
from inference.errors import ArtifactError
from tests.support import ROOT, make_base, manifest_of, until
from training import pipeline
from training.corpus import NO_WORD, Tokens, batches, divide, read_corpus
from training.errors import BaseModelError, DataError
from training.masked import MaskedModel, guesses, masked_logits, pseudo_perplexity
from training.masking import Masking
from training.pretrain import Learning, pretrain
from training.settings import PretrainConfig, TrainConfig
from training.unfinished import alone
from training.wordpieces import learn_tokenizer

FAMILIES = ["bert", "distilbert", "roberta"]
SIZES = {"vocabulary": 150, "layers": 2, "hidden": 32, "heads": 2, "max_tokens": 32}
TINY = PretrainConfig(base="none", epochs=8, learning_rate=1e-2, batch_size=16, dropout=0.0, **SIZES)


def sentence(generator):
    """A sentence whose words tell of each other: what is asked for follows from who asks."""
    who, what = generator.choice([("i", "money"), ("we", "parcel"), ("they", "ticket")])
    verb = generator.choice(["want", "lost", "found", "like", "need"])
    place = generator.choice(["page", "card", "box", "account", "order", "invoice"])
    when = generator.choice(["today", "yesterday", "again", "twice"])
    return f"{who} {verb} the {what} on the {place} {when}."


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    generator = random.Random(0)
    texts = dict.fromkeys(sentence(generator) for _ in range(2000))
    path = tmp_path_factory.mktemp("corpus") / "corpus.txt"
    path.write_text("\n".join(texts) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def pretrained(corpus, tmp_path_factory):
    """A tiny BERT pretrained from scratch, undisturbed."""
    out = tmp_path_factory.mktemp("pretrained") / "base"
    return out, pretrain(TINY, [corpus], out)


@pytest.fixture(scope="module", params=FAMILIES)
def masked(request, tmp_path_factory):
    """A model of each family, with a head that has learnt nothing."""
    return MaskedModel.start(str(make_base(tmp_path_factory.mktemp(request.param) / "base", request.param)))


# -- what is hidden ----------------------------------------------------------------------------------------------------


def many_words(generator, texts=400, tokens=24):
    """Word numbers of texts of several lengths, words of one to four pieces, a special token at both ends."""
    words = np.full((texts, tokens), NO_WORD)
    for row in words:
        end = generator.integers(2, tokens)
        sizes = generator.integers(1, 5, size=tokens)
        row[1:end] = np.repeat(np.arange(tokens), sizes)[: end - 1]
    return words


MASKING = Masking(mask_id=4, others=np.arange(5, 100), share=0.15)


def test_words_are_hidden_whole_and_nothing_else_is():
    generator = np.random.default_rng(0)
    words = many_words(generator)
    chosen = MASKING.choose(words, generator)
    assert not chosen[words == NO_WORD].any()
    for row, hidden in zip(words, chosen, strict=True):
        for word in set(row.tolist()) - {NO_WORD}:
            assert hidden[row == word].all() or not hidden[row == word].any()


def test_a_share_of_the_tokens_is_hidden_and_one_word_at_least():
    generator = np.random.default_rng(0)
    words = many_words(generator)
    hidden, tokens = MASKING.choose(words, generator).sum(axis=1), (words != NO_WORD).sum(axis=1)
    assert (hidden >= 1).all()
    room = np.maximum(1, np.rint(0.15 * tokens))
    assert (hidden <= np.maximum(room, 4)).all()  # 4: the longest word, where none has room
    assert (hidden == room).mean() > 0.6


def test_a_text_of_no_words_has_nothing_hidden():
    words = np.array([[NO_WORD, NO_WORD, NO_WORD], [NO_WORD, 0, NO_WORD]])
    chosen = MASKING.choose(words, np.random.default_rng(0))
    assert chosen.tolist() == [[False] * 3, [False, True, False]]


def test_of_what_is_hidden_a_tenth_stays_and_a_tenth_is_another_token():
    generator = np.random.default_rng(0)
    words = many_words(generator, texts=4000)
    ids = np.where(words == NO_WORD, 2, 7)
    read, chosen = MASKING.hide(ids, words, generator)
    assert (read[~chosen] == ids[~chosen]).all()
    of_chosen = read[chosen]
    assert (of_chosen == 4).mean() == pytest.approx(0.8, abs=0.02)
    assert (of_chosen == 7).mean() == pytest.approx(0.1 + 0.1 / 95, abs=0.02)
    assert (of_chosen[of_chosen != 4] >= 5).all()  # no special token


def test_masks_follow_from_the_seed_and_change_with_it():
    words = many_words(np.random.default_rng(0))
    one, same, other = (MASKING.hide(words + 9, words, np.random.default_rng(seed))[0] for seed in (1, 1, 2))
    assert (one == same).all()
    assert (one != other).any()


@pytest.mark.parametrize("masked", FAMILIES, indirect=True)
def test_special_and_unknown_tokens_belong_to_no_word(masked):
    tokens = Tokens.of(["refund the money", "пароль refund"], masked.tokenizer, max_tokens=32)
    special = np.isin(tokens.ids, masked.tokenizer.all_special_ids)
    assert special.sum() >= 4
    assert ((tokens.words == NO_WORD) == special).all()


# -- text --------------------------------------------------------------------------------------------------------------


def test_a_pass_reads_every_text_once_among_texts_of_its_length(pretrained):
    tokenizer = transformers.AutoTokenizer.from_pretrained(pretrained[0])
    texts = [" ".join(["money"] * (1 + i % 20)) for i in range(300)]
    tokens = Tokens.of(texts, tokenizer, max_tokens=32)
    one_pass = batches(tokens, 16, np.random.default_rng(0))
    assert sorted(np.concatenate(one_pass).tolist()) == list(range(300))
    assert max(np.ptp(tokens.lengths[batch]) for batch in one_pass) <= 2
    ids, words = tokens.batch(np.array([19, 0]))
    assert ids[1].tolist() == [*tokenizer("money")["input_ids"], *[tokenizer.pad_token_id] * 19]
    assert words[1].tolist() == [NO_WORD, 0] + [NO_WORD] * 20


def test_a_pass_is_put_together_once(masked, corpus):
    """A large corpus takes longer to put into batches than a step takes."""
    config = PretrainConfig(batch_size=4)
    tokens = Tokens.of(read_corpus([corpus])[:40], masked.tokenizer, max_tokens=16)
    learning = Learning.of(config, copy.deepcopy(masked), tokens)

    steps = learning.steps_a_pass
    second = learning.batches(1)
    learning.step(steps, 100)

    assert learning.batches(1) is second


def test_files_of_any_kind_give_distinct_texts(tmp_path):
    lines = [f"sentence number {i}" for i in range(60)]
    (tmp_path / "a.txt").write_text("\ufeff" + "\n".join(lines) + "\n\n  \nSentence  Number 1\n", encoding="utf-8")
    (tmp_path / "b.csv").write_text('id,line\n1,"héllo, wörld 🙂"\n2,\n3,sentence number 2\n', encoding="utf-8")
    (tmp_path / "c.jsonl").write_text('{"line": "one more\u2028here"}\n', encoding="utf-8")
    texts = read_corpus([tmp_path / name for name in ("a.txt", "b.csv", "c.jsonl")], text_column="line")
    assert texts == [*lines, "héllo, wörld 🙂", "one more here"]


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("empty.txt", b"", "holds no sentence"),
        ("blank.txt", b"\n  \n\xe2\x80\x8b\n", "holds no sentence"),
        ("few.txt", b"one\nOne\ntwo\n", "2 distinct of 3 sentences; expected at least 50"),
        ("latin.txt", b"good\ncaf\xe9\n", "line 2: byte 0xE9 is not UTF-8"),
        ("column.csv", b"sentence,label\nhello,a\n", "no column 'text'"),
        ("nothing.csv", b"text\n", "holds no sentence"),
        ("page.html", b"<p>", "unknown ending '.html'; expected one of .txt"),
    ],
)
def test_what_is_no_corpus_is_refused(tmp_path, name, content, told):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=told):
        read_corpus([tmp_path / name])
    with pytest.raises(DataError, match=r"none.txt: cannot be read \(No such file"):
        read_corpus([tmp_path / "none.txt"])


def test_held_out_texts_follow_from_the_seed_and_are_never_learnt():
    texts = [str(i) for i in range(100)]
    learnt, held_out = divide(texts, share=0.1, seed=1)
    assert len(held_out) == 10
    assert sorted(learnt + held_out) == sorted(texts)
    assert divide(texts, share=0.1, seed=1) == (learnt, held_out)
    assert divide(texts, share=0.1, seed=2)[1] != held_out


def test_two_runs_of_one_checkpoint_at_once_are_refused(tmp_path, corpus):
    with alone(tmp_path / ".out.pretraining"), pytest.raises(InputError, match="another process is at work there"):
        pretrain(TINY, [corpus], tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_vocabulary_is_learnt_from_the_texts_alone(corpus):
    texts = corpus.read_text().split("\n")
    tokenizer = learn_tokenizer(texts, vocabulary=150, max_tokens=32)
    assert len(tokenizer) <= 150
    assert tokenizer.tokenize("WE Lost the tícket.") == ["we", "lost", "the", "ticket", "."]
    assert tokenizer.convert_ids_to_tokens(tokenizer("twice")["input_ids"]) == ["[CLS]", "twice", "[SEP]"]
    assert tokenizer.tokenize("twiceд")[0] == "[UNK]"
    again = learn_tokenizer(texts, vocabulary=150, max_tokens=32)
    assert again.backend_tokenizer.to_str() == tokenizer.backend_tokenizer.to_str()


# -- what is measured --------------------------------------------------------------------------------------------------

TEXTS = [
    "refund the money",
    "please cancel my order twice please",
    "stop",
    "charged invoices crashed when the app crashes",
]


@pytest.mark.parametrize("whole_words", [False, True])
def test_pseudo_likelihoods_are_those_of_one_hidden_token_at_a_time(masked, whole_words):
    """By the definition: each token alone, through the model's own forward, with neither batch nor padding."""
    measured = pseudo_perplexity(masked.model, masked.tokenizer, TEXTS, whole_words=whole_words)
    total, count = 0.0, 0
    for text, likelihood in zip(TEXTS, measured.texts, strict=True):
        encoding = masked.tokenizer(text, return_tensors="pt")
        words = encoding.word_ids(0)
        expected = []
        for i, word in enumerate(words):
            if word is None or encoding["input_ids"][0, i] == masked.tokenizer.unk_token_id:
                continue
            ids = encoding["input_ids"].clone()
            ids[0, i] = masked.tokenizer.mask_token_id
            for later in range(i + 1, len(words) if whole_words else 0):
                if words[later] == word:
                    ids[0, later] = masked.tokenizer.mask_token_id
            with torch.no_grad():
                logits = masked.model(input_ids=ids, attention_mask=encoding["attention_mask"]).logits
            expected.append(logits[0, i].log_softmax(dim=-1)[encoding["input_ids"][0, i]].item())
        np.testing.assert_allclose(likelihood.log_probabilities, expected, atol=1e-4)
        assert likelihood.total == pytest.approx(sum(expected), abs=1e-3)
        total, count = total + sum(expected), count + len(expected)
    assert measured.tokens == count
    assert measured.value == pytest.approx(math.exp(-total / count), rel=1e-4)


def test_a_text_without_a_token_is_no_surprise(masked):
    measured = pseudo_perplexity(masked.model, masked.tokenizer, ["", "refund"])
    assert measured.texts[0].total == 0
    assert measured.texts[0].tokens == ()
    assert measured.tokens == len(measured.texts[1].tokens) > 0
    assert math.isnan(pseudo_perplexity(masked.model, masked.tokenizer, []).value)


def test_the_head_says_the_same_of_some_tokens_as_of_all(masked):
    inputs = masked.tokenizer("refund the money", return_tensors="pt")
    with torch.no_grad():
        states = masked.model.base_model(**inputs).last_hidden_state
        some = masked_logits(masked.model, states[0, 1:3])
        every = masked.model(**inputs).logits
    torch.testing.assert_close(some, every[0, 1:3])


def test_guesses_are_the_models_own_probabilities(masked):
    inputs = masked.tokenizer(f"refund the {masked.tokenizer.mask_token} please", return_tensors="pt")
    with torch.no_grad():
        row = masked.model(**inputs).logits[0].softmax(dim=-1)
    place = inputs["input_ids"][0].tolist().index(masked.tokenizer.mask_token_id)
    for text in ("refund the [MASK] please", f"refund the {masked.tokenizer.mask_token} please"):
        (blank,) = masked.guesses(text, 5)
        assert blank.word is None
        assert blank.probability is None
        best = sorted(
            (p for i, p in enumerate(row[place].tolist()) if i not in masked.tokenizer.all_special_ids), reverse=True
        )
        np.testing.assert_allclose([guess.probability for guess in blank.guesses], best[:5], rtol=1e-4)


def test_a_marked_word_is_as_probable_as_its_pieces_in_a_row(masked):
    """In the midst of a text and at both ends; byte-level pieces take the blank before them along."""
    text = "refunded the moneys please"
    likelihood = masked.pseudo_log_likelihoods([text], whole_words=True)[0]
    numbers = [word for word in masked.tokenizer(text).word_ids() if word is not None]
    for number, word in enumerate(text.split()):
        (blank,) = masked.guesses(text.replace(word, f"[[{word}]]"))
        pieces = [p for p, of in zip(likelihood.log_probabilities, numbers, strict=True) if of == number]
        assert blank.probability == pytest.approx(math.exp(sum(pieces)), rel=1e-3)


def test_a_model_that_has_learnt_guesses_what_belongs_there(pretrained):
    masked = MaskedModel.load(str(pretrained[0]))
    money, place = masked.guesses("They lost the [[money]] on the [MASK] today.", 3)
    assert money.word == "money"
    likely = {guess.token: guess.probability for guess in money.guesses}
    assert likely.keys() == {"money", "parcel", "ticket"}
    assert money.probability == pytest.approx(likely["money"], rel=1e-4)
    assert {guess.token for guess in place.guesses} <= {"page", "card", "box", "account", "order", "invoice"}
    assert masked.guesses("i [[ждал]] it")[0].probability is None
    good, bad = masked.pseudo_log_likelihoods(["we found the parcel on the box again.", "box we the on parcel found."])
    assert good.total / len(good.tokens) > bad.total / len(bad.tokens) + 1


@pytest.mark.parametrize(
    ("text", "top_k", "told"),
    [
        ("no blank", 5, "has no blank"),
        ("a [MASK]", 0, "top_k is 0"),
        ("box " * 40 + "[MASK]", 5, "tokens; expected at"),
    ],
)
def test_a_text_that_cannot_be_guessed_is_refused(pretrained, text, top_k, told):
    masked = MaskedModel.load(str(pretrained[0]))
    with pytest.raises(InputError, match=told):
        guesses(masked.model, masked.tokenizer, text, top_k)


@pytest.mark.parametrize("base", ["tiny", "minilm"])
def test_a_base_without_a_head_guesses_nothing(tiny_base, base):
    with pytest.raises(BaseModelError, match=r"no masked-language-model head.*bertrand pretrain"):
        MaskedModel.load(str(tiny_base) if base == "tiny" else base)


# -- the run -----------------------------------------------------------------------------------------------------------


def test_pretraining_from_scratch_teaches(pretrained):
    out, record = pretrained
    before, after = (record["pseudo_perplexity"][when]["value"] for when in ("before", "after"))
    assert before > 5 * after
    assert json.loads((out / "pretrain.json").read_text()) == record
    assert record["config"]["seed"] == 0
    assert [entry["epoch"] for entry in record["history"]] == list(range(1, 9))
    assert record["history"][-1]["held_out_loss"] < record["history"][0]["held_out_loss"] - 1
    assert isinstance(MaskedModel.load(str(out)).model, transformers.BertForMaskedLM)
    assert not list(out.parent.glob(".*"))


def test_a_killed_run_resumes_to_the_same_weights(tmp_path, corpus, pretrained):
    out, work = tmp_path / "base", tmp_path / ".base.pretraining"
    options = {"base": "none", "epochs": 8, "learning-rate": 1e-2, "batch-size": 16, "dropout": 0.0}
    options |= {name.replace("_", "-"): value for name, value in SIZES.items()}
    command = ["pretrain", corpus, "--out", out, *(f"--{name}={value}" for name, value in options.items())]
    process = subprocess.Popen([sys.executable, "-m", "bertrand", *map(str, command)], cwd=ROOT, stderr=subprocess.PIPE)

    def learning():
        assert process.poll() is None
        state = work / "state.pt"
        return state.is_file() and torch.load(state, weights_only=True)["step"] > 0

    until(learning, 60)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not out.exists()
    (work / "state.pt.partial").write_bytes(b"half")  # as a kill while it is written leaves it

    with pytest.raises(DataError, match="seed was 0 and is 5"):
        pretrain(replace(TINY, seed=5), [corpus], out, resume=True)
    record = pretrain(TINY, [corpus], out, resume=True)

    undisturbed = pretrained[0]
    assert (out / "model.safetensors").read_bytes() == (undisturbed / "model.safetensors").read_bytes()
    assert record["pseudo_perplexity"] == pretrained[1]["pseudo_perplexity"]
    assert {path.name for path in tmp_path.iterdir()} == {"base"}


def test_a_run_goes_on_from_the_base_that_it_began_with(tmp_path, corpus, pretrained, monkeypatch):
    """Another one of the same name has other weights, and its vocabulary gives each number to another piece."""
    base = tmp_path / "mine"
    shutil.copytree(pretrained[0], base)
    config = PretrainConfig(base=str(base), epochs=3, max_tokens=32, measured=5)
    with monkeypatch.context() as patched:
        patched.setattr(Learning, "step", interrupted)
        with pytest.raises(KeyboardInterrupt):
            pretrain(config, [corpus], tmp_path / "out")
    pretrain(replace(TINY, seed=1, epochs=1), [corpus], base)

    with pytest.raises(DataError, match="cannot resume, the files of the base model differ"):
        pretrain(config, [corpus], tmp_path / "out", resume=True)


def interrupted(*_):
    """In the place of a step."""
    raise KeyboardInterrupt


def test_what_diverges_replaces_nothing(tmp_path, corpus):
    out = tmp_path / "base"
    pretrain(replace(TINY, epochs=1), [corpus], out)
    before = (out / "model.safetensors").read_bytes()

    with pytest.raises(InputError, match=r"is (nan|inf): training diverged; give a lower --learning-rate"):
        pretrain(replace(TINY, learning_rate=1.0, weight_decay=10.0, epochs=30), [corpus], out)

    assert (out / "model.safetensors").read_bytes() == before


def test_a_base_whose_weights_are_no_numbers_is_refused(tmp_path, tiny_base, sentences):
    model = transformers.AutoModel.from_pretrained(tiny_base)
    with torch.no_grad():
        model.encoder.layer[1].output.dense.bias[3] = math.nan
    model.save_pretrained(tmp_path / "base")
    transformers.AutoTokenizer.from_pretrained(tiny_base).save_pretrained(tmp_path / "base")

    with pytest.raises(BaseModelError, match=r"weights .*layer\.1\.output\.dense\.bias are not all numbers"):
        pipeline.train(TrainConfig(base=str(tmp_path / "base")), sentences, out=tmp_path / "out")


def test_an_interrupted_run_leaves_nothing_half_written(tmp_path, corpus):
    command = ["pretrain", corpus, "--out", tmp_path / "base", "--base", "none", "--hidden", "32", "--epochs", "5000"]
    process = subprocess.Popen(
        [sys.executable, "-m", "bertrand", *map(str, command)],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
        # A shell starts what it puts into the background with Ctrl-C ignored, and that is inherited.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert any(line.startswith("epoch 1 ") for line in process.stderr)
    process.send_signal(signal.SIGINT)
    _, rest = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in rest
    assert {path.name for path in tmp_path.iterdir()} == {".base.pretraining"}


@pytest.mark.parametrize("settings", [{}, {"pooling": "first", "init": "types"}])
def test_what_was_pretrained_is_a_base_to_train(tmp_path, pretrained, sentences, settings):
    config = TrainConfig(base=str(pretrained[0]), epochs=1, batch_size=32, consistency=0.0, soft_labels=0.0, **settings)
    pipeline.train(config, sentences, out=tmp_path / "out")
    manifest = manifest_of(tmp_path / "out")
    assert manifest["max_tokens"] == 32  # no position that pretraining never saw
    assert manifest["labels"] == ["login", "praise", "refund"]


def test_a_base_of_any_family_is_pretrained_further(tmp_path, masked, corpus, capfd):
    """And again, from what came of it: with the head that it now has."""
    base, out = tmp_path / "base", tmp_path / "out"
    masked.model.base_model.save_pretrained(base)
    masked.tokenizer.save_pretrained(base)
    config = PretrainConfig(base=str(base), epochs=1, max_tokens=32, measured=20)
    first = pretrain(config, [corpus], out)
    assert "no masked-language-model head: a new one starts at random" in capfd.readouterr().err
    assert first["head"] == "new"
    again = pretrain(replace(config, base=str(out)), [corpus], tmp_path / "again")
    assert "has a masked-language-model head, which goes on learning" in capfd.readouterr().err
    assert again["head"] == "pretrained"
    before, after = (again["pseudo_perplexity"][when]["value"] for when in ("before", "after"))
    assert before == pytest.approx(first["pseudo_perplexity"]["after"]["value"])
    assert after < before < first["pseudo_perplexity"]["before"]["value"]


def test_a_new_head_follows_from_the_seed(tmp_path, corpus):
    """The generator's state before the run is chance: another process has another."""
    base = str(make_base(tmp_path / "base", "bert"))
    config = PretrainConfig(base=base, epochs=1, max_tokens=32, measured=5)
    weights = []
    for name, seed in [("one", 0), ("again", 0), ("other", 1)]:
        torch.seed()
        pretrain(replace(config, seed=seed), [corpus], tmp_path / name)
        weights.append((tmp_path / name / "model.safetensors").read_bytes())

    assert weights[0] == weights[1]
    assert weights[0] != weights[2]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_base_drops_as_much_as_is_asked(tmp_path, family):
    base = str(make_base(tmp_path / "base", family))
    for asked, dropped in [(0.25, 0.25), (None, 0.1)]:
        model = MaskedModel.start(base, dropout=asked).model
        rates = {part.p for part in model.modules() if isinstance(part, torch.nn.Dropout)}
        assert dropped in rates
        assert rates <= {dropped, 0.0}, "attention drops none of its weights"


def test_measuring_the_speed_changes_nothing(tmp_path, corpus, capfd):
    """With hours at hand `epochs` decides, and the weights are those of a run that was not timed."""
    plain = pretrain(replace(TINY, epochs=1), [corpus], tmp_path / "plain")
    assert "steps a second" not in capfd.readouterr().err
    timed = pretrain(replace(TINY, epochs=1, minutes=600.0), [corpus], tmp_path / "timed")
    assert "steps a second" in capfd.readouterr().err
    assert timed["steps"] == plain["steps"]
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("plain", "timed")]
    assert weights[0] == weights[1]


def test_minutes_choose_the_number_of_steps(tmp_path, corpus, capfd):
    config = replace(TINY, epochs=None, minutes=0.02, measured=10)
    record = pretrain(config, [corpus], tmp_path / "base")
    assert f"{record['steps']} steps" in capfd.readouterr().err
    assert 1 <= record["steps"] < 1000
    assert record["history"][-1]["step"] == record["steps"]


def test_only_a_pretrained_base_is_replaced(tmp_path, corpus):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("precious")
    quick = replace(TINY, epochs=1)
    with pytest.raises(ArtifactError, match=r"holds something that is not a pretrained base \(no pretrain.json\)"):
        pretrain(quick, [corpus], tmp_path / "mine")
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "precious"
    assert {path.name for path in tmp_path.iterdir()} == {"mine"}  # told before the work, not after
    for seed in (0, 1):
        pretrain(replace(quick, seed=seed), [corpus], tmp_path / "base")
    assert json.loads((tmp_path / "base" / "pretrain.json").read_text())["config"]["seed"] == 1


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"layers": 2}, "--layers is 2; expected no such setting with a base"),
        ({"base": "none", "hidden": 30}, "--hidden is 30; expected a multiple of --heads, 4"),
        ({"epochs": 0}, "--epochs is 0; expected a whole number from 1 to"),
        ({"minutes": -1.0}, "--minutes is -1.0; expected a number from"),
        ({"mask_share": 1.0}, "--mask-share is 1.0; expected"),
        ({"text_column": ""}, "--text-column is ''; expected a name"),
    ],
)
def test_a_setting_out_of_range_is_named(settings, told):
    with pytest.raises(InputError, match=told):
        PretrainConfig(**settings)
