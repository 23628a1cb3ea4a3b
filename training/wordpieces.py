"""A WordPiece vocabulary of a corpus, and the tokenizer that reads text by it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")  # ids 0 to 4
LEAST = 2  # occurrences of what becomes a piece


def learn_tokenizer(texts: Sequence[str], *, vocabulary: int, max_tokens: int) -> Any:
    """
    Make a tokenizer like that of bert-base-uncased: lower case, no accents, words and punctuation, then word pieces.

    Args:
        texts: What the pieces are learnt from.
        vocabulary: Number of pieces, special ones included; fewer where the texts do not hold as many.
        max_tokens: Longer texts are cut.

    Returns:
        A transformers.BertTokenizerFast.
    """
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import BertTokenizerFast

    tokenizer = Tokenizer(models.WordPiece(unk_token=SPECIAL[1]))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocabulary,
        min_frequency=LEAST,
        special_tokens=list(SPECIAL),
        limit_alphabet=vocabulary // 4,  # the rarest characters of a large alphabet would leave no room for words
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.BertProcessing(
        sep=("[SEP]", SPECIAL.index("[SEP]")), cls=("[CLS]", SPECIAL.index("[CLS]"))
    )
    return BertTokenizerFast(tokenizer_object=tokenizer, model_max_length=max_tokens)
