"""The study of contexts: identities of its figures, and a page that says what they say."""

import copy
import json
import shutil

import numpy as np
import pytest

from bertrand.__main__ import main
from inference.errors import InputError
from tests.support import make_base
from training.checkpoint import load_tokenizer
from training.data import read_rows
from training.errors import DataError
from training.study import context, page
from training.study.split import split
from training.study.subject import Subject, load_encoder
from training.study.words import Words, vectors
from training.unfinished import alone

NAMES = ["pretrained", "fine-tuned", "random"]


@pytest.fixture(scope="module")
def record(model_folder, sentences, tmp_path_factory):
    """A study of the tiny model, on the sentences that it was trained on."""
    out = tmp_path_factory.mktemp("studies") / "context"
    return context.study(str(model_folder), sentences, out, uses=["where is my *card*", "the letter *z*"])


def check_identities(record):
    for weights in record["result"]["weights"].values():
        similar = np.asarray(weights["self_similarity"]["words"])
        np.testing.assert_allclose(similar[:, 0], 1, atol=1e-6)
        assert (similar[:, 1:].mean(axis=0) < 0.9999).all()
        for figure in ("mean", "low", "high"):
            assert weights["explained_variance"][figure][0] == pytest.approx(1, abs=1e-6)
        assert max(weights["explained_variance"]["mean"][1:]) < 0.9999


def test_at_the_type_rows_all_uses_of_a_word_are_one_vector_and_above_they_are_not(record):
    """If it were otherwise, something other than the embedding matrix would be measured as its rows."""
    check_identities(record)
    for weights in record["result"]["weights"].values():
        rows = weights["type_row"]
        assert rows["mean"][0] == pytest.approx(1, abs=1e-6)
        assert rows["nearest"][0] == 1
        assert max(rows["mean"][1:]) < 0.9999
    assert list(record["result"]["weights"]) == NAMES


@pytest.mark.parametrize("family", ["distilbert", "roberta"])
def test_other_families_have_the_same_identities(family, sentences, tmp_path):
    """A base alone has no fine-tuned weights; pieces of bytes are words too."""
    base = make_base(tmp_path / "base", family)

    record = context.study(str(base), sentences, tmp_path / "out")

    check_identities(record)
    assert list(record["result"]["weights"]) == ["pretrained", "random"]
    told = page.render(record, context.report(record))
    assert "Fine-tun" not in told


def test_a_word_has_the_vector_of_its_tokens_in_any_company(tiny_base):
    """Batches pad, and a word in pieces is their mean: neither may move it to another place."""
    tokenizer, model = load_tokenizer(str(tiny_base)), load_encoder(str(tiny_base))
    texts = ["the card", "please stop my order it is late and the box is not in", "carded a box. (card?)", "🙂"]
    words = Words.of(texts, tokenizer, max_tokens=32)
    found = np.zeros((4, len(words.uses), 32), dtype=np.float32)
    for _, uses, states in vectors(model, words):
        found[:, uses] = states

    assert words.marked(len(words.uses) - 1) == "carded a box. (*card*?)"
    for use, (sentence, first, stop, kind, start, end) in enumerate(words.uses.tolist()):
        inputs = tokenizer(texts[sentence], return_tensors="pt")
        states = model(**inputs, output_hidden_states=True).hidden_states
        rows = model.get_input_embeddings().weight[inputs["input_ids"]]
        expected = [layer[0, first:stop].detach().numpy().mean(axis=0) for layer in (rows, *states)]
        np.testing.assert_allclose(found[:, use], expected, atol=1e-5)
        assert words.names[kind] == texts[sentence][start:end]
    assert (words.uses[:, 2] - words.uses[:, 1]).max() > 1


def test_self_similarity_is_the_mean_cosine_of_all_pairs(record, model_folder, sentences):
    checkpoint = str(model_folder / "checkpoint")
    texts = list(dict.fromkeys(row.text for row in read_rows(sentences)))
    words = Words.of(texts, load_tokenizer(checkpoint), max_tokens=64)
    number = record["result"]["words"]["names"].index("order")
    kind = words.names.index("order")
    found = np.concatenate([s[-1][words.uses[u, 3] == kind] for _, u, s in vectors(load_encoder(checkpoint), words)])
    cosines = [
        a @ b / np.linalg.norm(a) / np.linalg.norm(b) for i, a in enumerate(found) for j, b in enumerate(found) if i < j
    ]

    assert len(found) == record["result"]["words"]["kept"][number] < 50
    measured = record["result"]["weights"]["fine-tuned"]["self_similarity"]["words"][number][-1]
    assert measured == pytest.approx(np.mean(cosines), abs=1e-4)


def test_the_base_is_what_the_model_began_with(model_folder, tiny_base, record):
    """Compared with other weights, fine-tuning would be given what it did not do."""
    weights = record["result"]["weights"]
    subject = Subject.of(str(model_folder))

    assert subject.base == str(tiny_base)
    # Frozen in the fine-tuning: the same rows in both.
    for figure in ("mean", "other"):
        assert weights["pretrained"]["type_row"][figure][:2] == weights["fine-tuned"]["type_row"][figure][:2]
    assert weights["pretrained"]["type_row"]["mean"][-1] != weights["fine-tuned"]["type_row"]["mean"][-1]


def test_the_sentences_follow_the_numbers(record):
    """Random weights in the place of pretrained ones, and the other way round: every claim turns with them."""
    own = context.report(record)
    assert (
        f"{np.mean([w[-1] for w in record['result']['weights']['pretrained']['self_similarity']['words']]):.3f}"
        in own.answer[0]
    )

    def with_drop(pretrained, random):
        changed = copy.deepcopy(record)
        for name, top in (("pretrained", pretrained), ("random", random)):
            figures = changed["result"]["weights"][name]["self_similarity"]
            figures["words"] = [[1.0, 0.9, 0.9 - (0.9 - top) / 2, top + i / 1e4] for i in range(len(figures["words"]))]
            figures["baseline"] = [0.0] * 4
        return context.report(changed)

    learnt, other = with_drop(0.4, 0.85), with_drop(0.85, 0.4)
    assert "it is learning that makes the layers bring the sentence" in learnt.answer[1]
    assert "layers that have learnt nothing make vectors depend" in other.answer[1]
    assert "no sign of learning" in with_drop(0.4, 0.4).answer[1]
    assert "nearly one vector for a word" in with_drop(0.99, 0.4).answer[0]
    assert "there is a vector for each token" in learnt.answer[0]
    assert "layers do so without any learning, and with it do so more" in with_drop(0.5, 0.6).answer[1]
    assert "the layers of neither make the uses of a word differ more" in with_drop(0.95, 0.98).answer[1]

    assert "Fine-tuning made the uses of a word" in " ".join(own.answer)
    anew = copy.deepcopy(record)
    anew["settings"]["start"] = "random"
    told = " ".join(
        [*context.report(anew).answer, *(text for part in context.report(anew).sections for text in part.says)]
    )
    assert "Than the pretrained weights, the fine-tuned ones make the uses of a word" in told
    assert "Fine-tuning" not in told

    again = copy.deepcopy(record)
    again["result"]["weights"]["pretrained"]["type_row"]["nearest"] = [1.0, 0.9, 0.4, 0.7]
    told = " ".join(text for part in context.report(again).sections for text in part.says)
    assert "in layer 1 for less than half of the tokens, and above it for more again" in told

    swapped = copy.deepcopy(record)
    weights = swapped["result"]["weights"]
    weights["pretrained"], weights["random"] = weights["random"], weights["pretrained"]
    for before, after in zip(own.sections[:4], context.report(swapped).sections[:4], strict=True):
        assert before.says[0] != after.says[0]
        told = [text.partition(":")[2] for text in before.says]
        assert after.says[0].partition(":")[2] == told[2]


def test_two_clouds_are_two_groups_and_one_cloud_is_one():
    generator = np.random.default_rng(5)
    one = generator.normal(size=(40, 16)).astype(np.float32)
    two = one + np.repeat([[0.0], [4.0]], [28, 12], axis=0).astype(np.float32)

    parted = split(two, generator)
    assert parted.p == 0.01
    assert parted.excess > 5
    np.testing.assert_array_equal(parted.second, np.arange(40) >= 28)
    alone = [
        split(generator.normal(size=(40, 16)).astype(np.float32) * [[3] + [1] * 15], generator).p for _ in range(10)
    ]
    assert np.mean(np.asarray(alone) > 0.05) > 0.7


def test_the_nearest_uses_are_those_of_the_same_word(record):
    card = record["result"]["nearest"][0]

    assert card["word"] == "card"
    near = card["fine-tuned"]
    assert near["found"] > 5
    assert [cosine for cosine, _ in near["uses"]] == sorted((cosine for cosine, _ in near["uses"]), reverse=True)
    assert all("*card*" in text for _, text in near["uses"])
    assert near["uses"][0][0] > near["mean"]
    assert record["result"]["nearest"][1]["word"] == "z"
    assert "the corpus has no other use of “z”" in page.render(record, context.report(record))


@pytest.mark.parametrize(
    ("use", "message"),
    [
        ("no word", "expected one word between asterisks"),
        ("*two* of *them*", "expected one word between asterisks"),
        ("*my card*", "is 2 words as this tokenizer splits them"),
        ("*🙂*", "is no words as this tokenizer splits them"),
    ],
)
def test_a_use_marks_one_word(use, message, tiny_base, sentences, tmp_path):
    with pytest.raises(InputError, match=message.replace("*", r"\*")):
        context.study(str(tiny_base), sentences, tmp_path / "out", uses=[use])


def test_the_command_writes_a_study_in_the_time_it_has(tiny_base, sentences, tmp_path, capsys):
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("\n".join(f"{row.text} {i % 40}" for i, row in enumerate(read_rows(sentences) * 10)))
    out = tmp_path / "study"

    assert main(["study", "context", str(tiny_base), str(corpus), "--minutes", "0.000001", "--out", str(out)]) == 0

    told = capsys.readouterr()
    record = json.loads((out / "study.json").read_text())
    read, used = record["result"]["sentences"]["read"], record["result"]["sentences"]["used"]
    assert used == 64 < read
    assert f"64 of {read:,} sentences, which is what fits the time" in told.err
    assert told.out.strip() == "\n".join(context.report(record).answer)
    assert "of which 64 drawn at random were run" in (out / "study.html").read_text()


def test_a_study_that_another_process_makes_is_left_alone(tiny_base, sentences, tmp_path):
    work = tmp_path / ".out.study"
    work.mkdir()
    (work / "measured.jsonl").write_text("what the other has measured\n")

    with alone(work), pytest.raises(InputError, match="another process is at work there"):
        context.study(str(tiny_base), sentences, tmp_path / "out")
    assert (work / "measured.jsonl").read_text() == "what the other has measured\n"
    context.study(str(tiny_base), sentences, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_corpus_with_nothing_to_compare_is_refused(tiny_base, tmp_path):
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("\n".join(f"refund {number}" for number in range(60)))

    with pytest.raises(DataError, match="no sentence has two words"):
        context.study(str(tiny_base), corpus, tmp_path / "out")


def test_a_classifier_of_elsewhere_needs_its_base_named(model_folder, tiny_base, tmp_path):
    checkpoint = shutil.copytree(model_folder / "checkpoint", tmp_path / "checkpoint")
    (checkpoint / "train.json").unlink()

    with pytest.raises(InputError, match="name it with --base"):
        Subject.of(str(checkpoint))
    assert Subject.of(str(checkpoint), base=str(tiny_base)).base == str(tiny_base)
    with pytest.raises(InputError, match="is a base model itself"):
        Subject.of(str(tiny_base), base="minilm")
