"""Sentences to answers: order, company, offsets, lengths, and texts that are none."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inference import Analysis, Classifier, InputError, Prediction, TextError
from inference.classifier import sigmoid, softmax
from tests.support import ROOT

TEXTS = [
    "my order is late",
    "login",
    "thank you " * 40,
    "?",
    "money back please",
    "naïve café",
    "日本語 text",
    "a 🙂 b",
]


@pytest.mark.parametrize("batch_size", [2, 3, 16])
def test_in_int8_not_one_bit_depends_on_company_or_load(model_folder, batch_size):
    """The usual dynamic quantisation takes its scale from the whole batch, so that every neighbour moves it."""
    classifier = Classifier.load(model_folder, precision="int8")
    alone = [classifier.analyze([text])[0] for text in TEXTS]

    with ThreadPoolExecutor(4) as pool:
        orders = [TEXTS[i:] + TEXTS[:i] for i in range(len(TEXTS))] * 3
        rounds = list(pool.map(lambda texts: classifier.analyze(texts, batch_size=batch_size), orders))

    for texts, among in zip(orders, rounds, strict=True):
        for text, analysis in zip(texts, among, strict=True):
            lone = alone[TEXTS.index(text)]
            assert analysis.prediction == lone.prediction
            np.testing.assert_array_equal(analysis.token_embeddings, lone.token_embeddings)
            np.testing.assert_array_equal(analysis.sentence_embedding, lone.sentence_embedding)


@pytest.mark.parametrize("batch_size", [1, 2, 3, 16, 64])
def test_a_text_scores_the_same_in_any_company(classifier, batch_size):
    """Padding must not leak into a score, or batching would change answers."""
    alone = np.concatenate([classifier.score([text]) for text in TEXTS])

    np.testing.assert_allclose(classifier.score(TEXTS, batch_size=batch_size), alone, atol=1e-6)


def test_answers_come_in_the_order_of_the_texts(classifier):
    """Inside, texts are sorted by length; outside nobody may notice."""
    forward, backward = classifier.analyze(TEXTS), classifier.analyze(TEXTS[::-1])[::-1]

    for text, one, other in zip(TEXTS, forward, backward, strict=True):
        assert one.prediction.label == other.prediction.label
        assert [text[t.start : t.end] for t in one.tokens if not t.special] == [
            t.text for t in one.tokens if not t.special
        ]


def test_scores_are_probabilities_best_first(classifier):
    for prediction in classifier.classify(TEXTS):
        scores = [score for _, score in prediction.scores]
        assert scores == sorted(scores, reverse=True)
        assert sum(scores) == pytest.approx(1, abs=1e-5)
        assert (prediction.label, prediction.score) == prediction.scores[0]
        assert {label for label, _ in prediction.scores} == set(classifier.labels)


def test_an_analysis_has_one_vector_a_token_and_their_mean(classifier):
    analysis = classifier.analyze(["my order is late"])[0]

    assert [token.text for token in analysis.tokens] == ["[CLS]", "my", "order", "is", "late", "[SEP]"]
    assert [token.special for token in analysis.tokens] == [True, False, False, False, False, True]
    assert analysis.token_embeddings.shape == (6, 32)
    np.testing.assert_allclose(analysis.sentence_embedding, analysis.token_embeddings.mean(axis=0), atol=1e-6)
    assert analysis.prediction.token_count == 6


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("Café!", ["Café", "!"]),
        ("cafe\u0301 order", ["cafe\u0301", "order"]),  # a combining accent belongs to its letter
        ("日本語", ["日", "本", "語"]),
        ("a 👩‍👩‍👧 b", ["a", "👩‍👩‍👧", "b"]),
        ("a\u00a0b\tc", ["a", "b", "c"]),
        ("login\r\npassword", ["login", "password"]),
        ("Straße", ["Straße"]),
    ],
)
def test_offsets_are_characters_of_the_text_as_sent(classifier, text, pieces):
    """Byte offsets, or offsets into the normalised text, cut words in half in every language but English."""
    tokens = [token for token in classifier.analyze([text])[0].tokens if not token.special]

    assert [text[token.start : token.end] for token in tokens] == pieces
    assert [token.text for token in tokens] == pieces


def test_a_long_text_is_cut_and_marked(classifier):
    short, exact, long = classifier.classify(["late", "late " * 30, "late " * 31])

    assert (short.truncated, short.token_count) == (False, 3)
    assert (exact.truncated, exact.token_count) == (False, 32)
    assert (long.truncated, long.token_count) == (True, 32)
    assert long.scores == exact.scores


@pytest.mark.parametrize(
    "text",
    [
        "late order " * 2000,
        "late" * 5000,
        "日本語" * 4000,
        "a, b? " * 3000 + "é",
        " " * 3000 + "late " * 900,
        "x" * 9000 + " late" * 500,
    ],
    ids=["words", "one word", "no blanks", "marks", "blanks first", "a long word first"],
)
def test_of_a_very_long_text_only_the_start_is_tokenized_and_nothing_changes(classifier, text):
    """Ten megabytes must not be tokenized for their first page, nor may their first page read otherwise."""
    from tokenizers import Tokenizer

    whole = Tokenizer.from_str(classifier.encoder._tokenizer.to_str()).encode(text)

    (encoded,) = classifier.encoder.encode([text])

    assert encoded.ids.tolist() == whole.ids
    assert encoded.truncated == bool(whole.overflowing)
    assert [(token.start, token.end) for token in encoded.tokens()] == whole.offsets


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", "text_empty"),
        (" \t\n\u00a0\u3000", "text_empty"),
        ("\u200b\u0000\ufeff", "text_empty"),  # nothing that the tokenizer keeps
        ("a\ud800b", "text_invalid"),
        (None, "text_invalid"),
        (5, "text_invalid"),
        (b"bytes", "text_invalid"),
    ],
)
def test_a_bad_text_fails_alone(classifier, text, code):
    before, error, after = classifier.analyze(["late", text, "login"])

    assert isinstance(error, TextError)
    assert error.code == code
    assert isinstance(before, Analysis)
    assert after.prediction == classifier.classify(["login"])[0]


def test_no_texts_give_no_answers(classifier):
    assert classifier.classify([]) == []
    assert classifier.analyze([]) == []
    assert classifier.score([]).shape == (0, 3)


def test_score_names_the_text_it_cannot_score(classifier):
    with pytest.raises(InputError, match="text 1: the text is empty"):
        classifier.score(["late", " "])


def test_top_k_and_threshold_choose_among_the_scores(classifier):
    (text,) = classifier.encoder.encode(["my order is late"])
    logits = np.array([2.0, 1.0, 0.0], dtype=np.float32)

    assert [label for label, _ in classifier.predict(text, logits, top_k=2).scores] == list(classifier.labels[:2])
    assert [label for label, _ in classifier.predict(text, logits, threshold=0.5).scores] == [classifier.labels[0]]
    nothing = classifier.predict(text, logits, threshold=0.99)
    assert (nothing.label, nothing.score, nothing.scores) == (None, None, ())


def test_the_temperature_divides_the_logits(classifier):
    from dataclasses import replace

    warm = Classifier(replace(classifier.manifest, temperature=2.0), classifier.encoder, classifier.engine, "fp32")
    logits = np.array([[2.0, 0.0, -2.0]], dtype=np.float32)

    np.testing.assert_allclose(warm.probabilities(logits), softmax(logits / 2))


def test_softmax_and_sigmoid_survive_any_logit():
    logits = np.array([[1000.0, -1000.0, 0.0], [-88.0, -90.0, -500.0]], dtype=np.float32)

    with np.errstate(over="raise", invalid="raise"):
        np.testing.assert_allclose(softmax(logits).sum(axis=1), 1, atol=1e-6)
        assert softmax(logits)[0].tolist() == [1, 0, 0]
        np.testing.assert_allclose(sigmoid(logits[0]), [1, 0, 0.5])


@settings(max_examples=150, deadline=None)
@given(texts=st.lists(st.text(max_size=60), max_size=6))
def test_any_unicode_gets_an_answer_or_an_error_of_its_own(classifier, texts):
    results = classifier.classify(texts)

    assert len(results) == len(texts)
    for text, result in zip(texts, results, strict=True):
        assert isinstance(result, Prediction | TextError)
        if isinstance(result, Prediction):
            assert text.strip()


def test_tokens_without_offsets_are_the_same_and_cannot_be_placed(classifier):
    """Who needs no offsets does not pay for them; offsets of zero must not pass for real ones."""
    texts = ["please refund my order", "日本語 é 🙂", "late " * 100, " "]
    for full, quick in zip(
        classifier.encoder.encode(texts), classifier.encoder.encode(texts, offsets=False), strict=True
    ):
        if full is quick or full == quick:
            continue
        assert (full.ids.tolist(), full.truncated) == (quick.ids.tolist(), quick.truncated)
        with pytest.raises(AssertionError, match="offsets=True"):
            quick.tokens()


@given(
    st.text(st.characters(max_codepoint=0x180), max_size=200)
    | st.text(st.sampled_from("aAb refund19_$[](\t\n\x0b"), max_size=200)
    | st.sampled_from(["[SEP] a", "[sep]", "a [MASK]", "A" * 150, "late " * 40, "a_b " * 9 + "c"])
)
def test_texts_of_plain_letters_have_the_tokens_that_the_tokenizer_itself_gives(classifier, text):
    """They are put together from words that were seen before."""
    encoder = classifier.encoder
    assert encoder._words is not None
    whole = encoder._tokenizer.encode(text)
    for offsets in (True, False):
        (encoded,) = encoder.encode([text], offsets=offsets)

        if isinstance(encoded, TextError):
            assert sum(whole.special_tokens_mask) == len(whole.ids)
            return
        assert (encoded.ids.tolist(), encoded.truncated) == (whole.ids, bool(whole.overflowing))
        if offsets and text.isascii():
            assert [(token.start, token.end) for token in encoded.tokens()] == whole.offsets
            assert encoded.special().tolist() == list(map(bool, whole.special_tokens_mask))
            assert [token.text for token in encoded.tokens() if token.special] == [
                token for token, special in zip(whole.tokens, whole.special_tokens_mask, strict=True) if special
            ]


def test_words_are_remembered_within_bounds(classifier, monkeypatch):
    """Callers who send new words for ever must not fill the memory."""
    from inference import words

    monkeypatch.setattr(words, "MOST_WORDS", 50)
    encoder = classifier.encoder
    expected = [encoder._tokenizer.encode(f"order {i} {'x' * i}").ids for i in range(100)]

    for _ in range(2):
        assert [item.ids.tolist() for item in encoder.encode([f"order {i} {'x' * i}" for i in range(100)])] == expected

    remembered = encoder._words._ids
    assert len(remembered) <= 50
    assert max(map(len, remembered)) <= words.LONGEST_WORD


def test_nothing_is_reported_to_anybody(model_folder, tmp_path):
    """ONNX Runtime's reporting begins with an identity of the machine and a queue of events in the home folder."""
    code = f"from inference import Classifier; Classifier.load({str(model_folder)!r}).classify(['my order'])"
    told_otherwise = {"ORT_DISABLE_TELEMETRY", "CI", "XDG_CACHE_HOME"}
    environment = {name: value for name, value in os.environ.items() if name not in told_otherwise}
    command = [sys.executable, "-c", code]
    subprocess.run(command, cwd=ROOT, check=True, env=environment | {"HOME": str(tmp_path)}, timeout=300)
    assert list(tmp_path.iterdir()) == []
