"""A WordPiece vocabulary of a corpus, and the tokenizer that reads text by it."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")  # ids 0 to 4
GOES_ON = "##"  # before a piece that does not begin a word
LEAST = 2  # occurrences of what becomes a piece


def learn_tokenizer(texts: Sequence[str], *, vocabulary: int, max_tokens: int) -> Any:
    """
    Make a tokenizer like that of bert-base-uncased: lower case, no accents, words and punctuation, then word pieces.

    Args:
        texts: What the pieces are learnt from; the same texts give the same pieces.
        vocabulary: Number of pieces, special ones included; fewer where the texts do not hold as many.
        max_tokens: Longer texts are cut.

    Returns:
        A transformers.BertTokenizerFast.
    """
    from tokenizers import Tokenizer, trainers
    from tokenizers.models import WordPiece
    from transformers import BertTokenizerFast

    learner = _reader(Tokenizer(WordPiece(unk_token=SPECIAL[1])))
    words: Counter[str] = Counter()
    for text in texts:
        words.update(word for word, _ in learner.pre_tokenizer.pre_tokenize_str(learner.normalizer.normalize_str(text)))
    characters: Counter[str] = Counter()
    for word, count in words.items():
        characters.update(dict.fromkeys(word, count))
    # The rarest characters of a large alphabet would leave no room for words.
    alphabet = sorted(sorted(characters, key=lambda one: (-characters[one], one))[: vocabulary // 4])
    inside = {character for word in words for character in word[1:]}
    # The trainer numbers pieces inside words in the order of a hash map, and decides ties by number: the same texts
    # would give other pieces every time. What it is told are special tokens it numbers first, and in order.
    fixed = [*SPECIAL, *(GOES_ON + character for character in alphabet if character in inside)]
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocabulary,
        min_frequency=LEAST,
        special_tokens=fixed,
        initial_alphabet=alphabet,
        limit_alphabet=len(alphabet),
        continuing_subword_prefix=GOES_ON,
        show_progress=False,
    )
    learner.train_from_iterator(texts, trainer)
    pieces = WordPiece(learner.get_vocab(), unk_token=SPECIAL[1], continuing_subword_prefix=GOES_ON)
    return BertTokenizerFast(tokenizer_object=_reader(Tokenizer(pieces)), model_max_length=max_tokens)


def _reader(tokenizer: Any) -> Any:
    """Give a tokenizer what comes before and after the word pieces."""
    from tokenizers import decoders, normalizers, pre_tokenizers, processors

    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(prefix=GOES_ON)
    cls, sep = "[CLS]", "[SEP]"
    tokenizer.post_processor = processors.BertProcessing((sep, SPECIAL.index(sep)), (cls, SPECIAL.index(cls)))
    return tokenizer
