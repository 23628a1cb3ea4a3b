"""The study of masked words: its figures against the model itself, and a page that says what they say."""

import copy
import csv
import json

import numpy as np
import pytest
import torch
import transformers

from bertrand.__main__ import main
from tests.support import write_csv
from training.checkpoint import load_tokenizer
from training.corpus import read_corpus
from training.data import read_rows
from training.masked import MaskedModel, pseudo_perplexity
from training.study import mask, page
from training.study.guessing import CONTEXTS, WHOLE, Hidden, class_names, rank_words
from training.study.words import Words


def save(model, tokenizer, folder):
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def bases(tiny_base, sentences, tmp_path_factory):
    """A masked language model that has learnt nothing, and what it is after learning from the sentences."""
    folder = tmp_path_factory.mktemp("masked")
    tokenizer = load_tokenizer(str(tiny_base))
    config = transformers.BertConfig.from_pretrained(tiny_base)
    torch.manual_seed(1)
    model = transformers.BertForMaskedLM(config)
    save(model, tokenizer, folder / "unlearnt")
    texts = [row.text for row in read_rows(sentences)]
    inputs = tokenizer(texts, padding=True, return_tensors="pt")
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    known = inputs["attention_mask"].bool() & (inputs["input_ids"] > 4)
    for _ in range(100):
        hidden = known & (torch.rand(known.shape) < 0.25)
        read = inputs["input_ids"].masked_fill(hidden, tokenizer.mask_token_id)
        goals = inputs["input_ids"].masked_fill(~hidden, -100)
        model(input_ids=read, attention_mask=inputs["attention_mask"], labels=goals).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    save(model.eval(), tokenizer, folder / "learnt")
    return folder / "unlearnt", folder / "learnt"


@pytest.fixture(scope="module")
def record(bases, sentences, tmp_path_factory):
    out = tmp_path_factory.mktemp("studies") / "mask"
    unlearnt, learnt = map(str, bases)
    return mask.study(unlearnt, sentences, out, against=learnt, guesses=["i want my [MASK] back"])


def test_a_hidden_word_has_the_rank_that_the_model_gives_it(bases, sentences):
    """In batches, from arrays, and alone, from text, the same guesses come out."""
    masked = MaskedModel.load(str(bases[1]))
    texts = read_corpus([sentences])
    words = Words.of(texts, masked.tokenizer, max_tokens=64)
    hidden = Hidden.draw([words], most=40, seed=3)
    parts = zip(*rank_words(masked, words, hidden, WHOLE), strict=True)
    ranks, logs, guesses = ([value for batch in part for value in batch] for part in parts)

    assert len(ranks) == len(set(hidden.sentences.tolist())) == 40
    assert len(set(ranks)) > 3
    for i, (sentence, (start, end)) in enumerate(zip(hidden.sentences, hidden.spans, strict=True)):
        text = texts[sentence]
        assert text[start:end] == hidden.words[i]
        (blank,) = masked.guesses(f"{text[:start]}[MASK]{text[end:]}", top_k=100)
        tokens = [guess.token for guess in blank.guesses]
        assert tokens.index(hidden.words[i]) + 1 == ranks[i]
        assert tokens[:5] == [token for token, _ in guesses[i]]
        total = sum(guess.probability for guess in blank.guesses)
        assert np.exp(logs[i]) == pytest.approx(blank.guesses[ranks[i] - 1].probability / total, abs=1e-4)


def test_what_is_hidden_has_no_part_in_a_guess(bases):
    """Near leaves two words on each side, and nothing is left with no word at all."""
    masked = MaskedModel.load(str(bases[1]))

    def ranked(text, context):
        words = Words.of([text], masked.tokenizer, max_tokens=64)
        hidden = Hidden(np.array([0]), np.array([[15, 19]]), ["card"], np.array([1]), ["card"])
        assert text[15:19] == "card"
        ((_, (log,), _),) = rank_words(masked, words, hidden, context)
        return log

    whole, near, none = CONTEXTS
    text, far_away, beside = (
        "where is a the card on my page",
        "thank is a the card on my late",
        "where is i the card on my page",
    )
    assert ranked(text, near) == ranked(far_away, near)
    assert ranked(text, whole) != ranked(far_away, whole)
    assert ranked(text, near) != ranked("where is a the card on we page", near)
    assert ranked(text, none) == ranked(beside, none)
    assert ranked(text, near) != ranked(beside, near)


def test_the_figures_are_those_of_the_model(record, bases, sentences):
    masked = MaskedModel.load(str(bases[1]))
    texts = read_corpus([sentences])
    own = pseudo_perplexity(masked.model, masked.tokenizer, texts)
    found = record["result"]["perplexity"]["against"]

    assert found["value"] == pytest.approx(own.value, rel=1e-4)
    assert found["interval"][0] < found["value"] < found["interval"][1]
    assert found["tokens"] == own.tokens
    ratio = record["result"]["perplexity"]["ratio"]
    assert ratio["value"] == pytest.approx(found["value"] / record["result"]["perplexity"]["model"]["value"])
    (blank,) = masked.guesses("i want my [MASK] back")
    assert record["result"]["asked"][0]["against"][0][0] == [blank.guesses[0].token, blank.guesses[0].probability]
    assert set(record["result"]["frequency"]["classes"]) <= set(class_names())


def test_the_sentences_follow_the_numbers(record):
    """The models change places: what was better is worse, and the page says so."""
    own = " ".join(mask.report(record).answer)
    assert "it guesses no better than that" in own or "it guesses worse than that" in own
    assert "learnt names more of the same words at once than unlearnt" in own
    assert "these sentences are less surprising to it" in own

    swapped = copy.deepcopy(record)
    for figures in (swapped["result"]["guesses"], swapped["result"]["perplexity"], swapped["result"]["expected"]):
        figures["model"], figures["against"] = figures["against"], figures["model"]
    ratio = swapped["result"]["perplexity"]["ratio"]
    ratio["value"], ratio["interval"] = 1 / ratio["value"], [1 / end for end in ratio["interval"][::-1]]
    other = " ".join(mask.report(swapped).answer)
    assert "it has learnt what words these sentences need" in other
    assert "learnt names fewer of the same words at once than unlearnt" in other
    assert "these sentences are more surprising to it" in other

    told = page.render(swapped, mask.report(swapped))
    ranks = np.asarray(swapped["result"]["guesses"]["model"][WHOLE]["ranks"])
    assert page.percent((ranks <= 5).mean()) in told


def test_a_model_is_no_better_than_itself(bases, sentences, tmp_path):
    """Same weights, same words, same rows and seeds: every difference is exactly nothing."""
    base = str(bases[1])
    few = write_csv(tmp_path / "few.csv", [(row.text, row.labels[0]) for row in read_rows(sentences)[::16]])

    record = mask.study(base, sentences, tmp_path / "out", against=base, labelled=few, test=sentences, seeds=2)

    result = record["result"]
    assert result["guesses"]["model"] == result["guesses"]["against"]
    assert result["perplexity"]["ratio"] == {"value": 1, "interval": [1, 1]}
    classified = result["classifier"]
    assert classified["sizes"] == [6]
    assert max(classified["accuracy"]["model"][0]["by_seed"]) > 0.4
    assert [gain["value"] for gain in classified["gain"]] == [0] * len(classified["sizes"])
    told = " ".join(mask.report(record).answer)
    assert "neither more nor fewer" in told
    assert "no different from" in told
    changed = copy.deepcopy(record)
    for value, interval, said in ((0.2, [0.1, 0.3], "better than"), (-0.2, [-0.3, -0.1], "worse than")):
        changed["result"]["classifier"]["gain"][0] |= {"value": value, "interval": interval}
        assert said in " ".join(mask.report(changed).answer)


def test_the_command_writes_scores_of_all_sentences(bases, sentences, tmp_path, capsys):
    out = tmp_path / "study"

    assert main(["study", "mask", str(bases[1]), str(sentences), "--minutes", "2", "--out", str(out), "--json"]) == 0

    record = json.loads(capsys.readouterr().out)
    assert record == json.loads((out / "study.json").read_text())
    rows = list(csv.DictReader((out / "scores.csv").open(encoding="utf-8")))
    assert [row["text"] for row in rows] == read_corpus([sentences])
    worst = max(rows, key=lambda row: float(row["pseudo_perplexity"]) if int(row["tokens"]) >= 4 else 0)
    assert record["result"]["expected"]["model"]["least"][0][0] == worst["text"]
    total, count = (sum(float(row[column]) for row in rows) for column in ("log_likelihood", "tokens"))
    assert np.exp(-total / count) == pytest.approx(record["result"]["perplexity"]["model"]["value"], rel=1e-4)


def test_a_sentence_longer_than_the_model_reads_is_cut(bases, tmp_path):
    config = transformers.BertConfig.from_pretrained(bases[0], max_position_embeddings=12)
    short = save(transformers.BertForMaskedLM(config), load_tokenizer(str(bases[0])), tmp_path / "short")
    corpus = tmp_path / "corpus.txt"
    words = ("refund", "login", "page", "box", "order")
    corpus.write_text(
        "\n".join(f"{one} {'the card ' * 12}{other} {last}" for one in words for other in words for last in words[:2])
    )

    record = mask.study(str(short), corpus, tmp_path / "out")

    assert record["result"]["sentences"]["guessed"] == 50
    assert record["result"]["perplexity"]["model"]["tokens"] == 50 * 10  # without the two special ones


def test_a_study_stopped_at_its_end_has_all_it_had_measured_once_it_is_resumed(bases, sentences, tmp_path, monkeypatch):
    """Also where its time is up by then."""
    few = write_csv(tmp_path / "few.csv", [(row.text, row.labels[0]) for row in read_rows(sentences)[::16]])
    settings = {"against": str(bases[0]), "labelled": few, "test": sentences, "seeds": 2}

    def stop(_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(mask, "report", stop)
        with pytest.raises(KeyboardInterrupt):
            mask.study(str(bases[1]), sentences, tmp_path / "out", **settings)
    record = mask.study(str(bases[1]), sentences, tmp_path / "out", **settings, minutes=1e-6, resume=True)

    classifier = record["result"]["classifier"]
    assert classifier["sizes"]
    assert classifier["left_out"] == []
    assert list(classifier["steps"]) == [str(size) for size in classifier["sizes"]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{base}", "{data}", "--labelled", "{data}"], "--labelled and --test go together"),
        (["{base}", "{data}", "--labelled", "{data}", "--test", "{data}"], "name the other one with --against"),
        (["{base}", "{data}", "--guess", "no blank"], "has no blank"),
        (["{plain}", "{data}"], "has no masked-language-model head"),
        (["{model}", "{data}"], "is a classifier, which lost the head"),
    ],
)
def test_bad_input_says_what_to_do(arguments, message, bases, sentences, tiny_base, model_folder, tmp_path, capsys):
    places = {"base": bases[0], "data": sentences, "plain": tiny_base, "model": model_folder}

    code = main(["study", "mask", *(text.format(**places) for text in arguments), "--out", str(tmp_path / "out")])

    assert code == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
