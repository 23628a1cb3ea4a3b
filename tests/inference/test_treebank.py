"""Sentences split as in the Penn Treebank have the tokens of what people write; others keep theirs."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from inference import treebank
from inference.encoder import Encoder
from tests.support import make_base

NATURAL = {
    "it does n't work": "it doesn't work",
    "I CA N'T and wo n't": "I CAN'T and won't",
    "she 's in , they 'll not": "she's in, they'll not",
    "-LRB- late -RRB- again": "(late) again",
    "a -lsb- b -rsb- -LCB- c -RCB-": "a [b] {c}",
    "`` great '' , I said": '"great", I said',
    "order and\\/or refund , 5 \\* 2": "order and/or refund, 5 * 2",
    "gon na cancel , Got ta stop , gim me": "gonna cancel, Gotta stop, gimme",
    "why ? no .": "why? no.",
}
LEFT_ALONE = [
    'it doesn\'t work (at all), "she" said: 5/6!',
    "I can not; a 'quoted' word's end",
    "C:\\new `code` n't",
    "don ' t, 10-LR, x-rb",
    "thanks :) use .5 of it, open .env",
]


@pytest.fixture(scope="module", params=["bert", "roberta"])
def tokenizer(request, tmp_path_factory):
    """Return a tokenizer as it is pretrained with, and the same one made to undo the splitting."""
    base = make_base(tmp_path_factory.mktemp("base"), request.param)
    plain = Tokenizer.from_file(str(base / "tokenizer.json"))
    undoing = Tokenizer.from_file(str(base / "tokenizer.json"))
    treebank.set_undoing(undoing, undo=True)
    return plain, undoing


@pytest.mark.parametrize(("split", "natural"), NATURAL.items())
def test_a_split_sentence_has_the_tokens_of_the_natural_one(tokenizer, split, natural):
    plain, undoing = tokenizer

    assert undoing.encode(split).ids == undoing.encode(natural).ids == plain.encode(natural).ids
    assert undoing.normalizer.normalize_str(split).lower() == natural.lower()


@pytest.mark.parametrize("text", [*LEFT_ALONE, *NATURAL.values()])
def test_a_natural_sentence_is_left_alone(tokenizer, text):
    plain, undoing = tokenizer

    assert undoing.encode(text).ids == plain.encode(text).ids
    assert not treebank.is_split(text)


@pytest.mark.parametrize(
    ("text", "split"),
    [
        ("it does n't work", True),
        ("WO N'T", True),
        ("-LRB- late", True),
        ("she said `` great ''", True),
        ("``code`` and ''italics''", False),  # two mark-up languages
        ("she 's in , they 'll not .", False),  # so do hurried people
        ("gon na", False),
        ("", False),
    ],
)
def test_signs_of_splitting_are_those_that_nobody_writes(text, split):
    assert treebank.is_split(text) is split


def test_undoing_twice_is_undoing_once_and_survives_the_file(tokenizer, tmp_path):
    _, undoing = tokenizer
    undoing.save(str(tmp_path / "tokenizer.json"))
    loaded = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))

    treebank.set_undoing(loaded, undo=True)

    assert loaded.to_str() == undoing.to_str()


def test_what_undoes_can_be_made_to_leave_texts_as_they_are(tokenizer):
    plain, undoing = tokenizer
    left = Tokenizer.from_str(undoing.to_str())

    for _ in range(2):
        treebank.set_undoing(left, undo=False)
        assert left.to_str() == plain.to_str()


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    """Return the encoder of a BERT that undoes the splitting."""
    folder = make_base(tmp_path_factory.mktemp("base"), "bert")
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    treebank.set_undoing(tokenizer, undo=True)
    tokenizer.enable_padding(pad_id=0, pad_token="[PAD]")
    tokenizer.save(str(folder / "tokenizer.json"))
    return Encoder.load(folder / "tokenizer.json", 32)


@given(
    st.lists(
        st.sampled_from(
            [*"aIé(\"'`\\/- ", "n't", " n't", "-LRB-", "-rsb-", "``", "''", "gon", "na", "do", " 's", " ,"]
        ),
        max_size=12,
    ).map("".join)
)
def test_the_memory_of_words_knows_of_the_splitting(encoder, text):
    """Texts are put together from words that were seen before, but for those that are to be written in another way."""
    assert encoder._words is not None
    whole = encoder._tokenizer.encode(text)
    (encoded,) = encoder.encode([text])

    if sum(whole.special_tokens_mask) == len(whole.ids):
        assert encoded.code == "text_empty"
    else:
        assert encoded.ids.tolist() == whole.ids
        places = [(token.start, token.end) for token in encoded.tokens() if not token.special]
        assert [end for _, end in places] == [end for _, end in whole.offsets[1:-1]]
        assert all(end <= start for (_, end), (start, _) in itertools.pairwise(places))


def test_natural_sentences_are_still_looked_up(encoder):
    for text in NATURAL.values():
        assert encoder._words.plain(text) is not None
    assert encoder._words.plain("it does n't work") is None


def test_offsets_are_those_of_the_text_as_it_was_sent(encoder):
    text = "it does n't work -LRB- late -RRB- ``` ok ''"
    (encoded,) = encoder.encode([text])

    told = [text[token.start : token.end] for token in encoded.tokens() if not token.special]

    assert told == ["it", "does n", "'", "t", "work", "-LRB-", "late", "-RRB-", "``", "`", "ok", "''"]
