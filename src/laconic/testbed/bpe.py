"""The tokenizers of the testbeds: byte-level BPE trained on their own text; any UTF-8 text round-trips without unknowns."""

from collections.abc import Iterable, Sequence

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast


def train_bpe(
    text: Iterable[str], split: str, size: int, specials: Sequence[str], chat_template: str
) -> PreTrainedTokenizerFast:
    """A tokenizer of ``size`` tokens trained on ``text``.

    Args:
        split: regular expression of the words that are never merged with each other.
        specials: padding, beginning and end of a text first, then others.
    """
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(split), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=list(specials),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(text, trainer)
    pad, begin, end, *others = specials
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        pad_token=pad,
        bos_token=begin,
        eos_token=end,
        additional_special_tokens=others,
        clean_up_tokenization_spaces=False,
        model_max_length=4096,
        padding_side="left",
    )
    tokenizer.chat_template = chat_template
    return tokenizer
