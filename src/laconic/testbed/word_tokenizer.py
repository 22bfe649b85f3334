"""A tokenizer of whole words, for testbeds whose tasks use few of them."""

from collections.abc import Sequence

from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from laconic.prompts.text import JOINT

PAD, BEGIN, END, UNKNOWN = ("<pad>", "<s>", "</s>", "<unk>")
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %} {{ message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}"
)
"""An answer follows its question at once: nothing stands between what is asked and the fact that says it."""


def word_tokenizer(words: Sequence[str], longest: int) -> PreTrainedTokenizerFast:
    """One token for each word, and for what a chat needs; other words are ``<unk>``. `longest`: tokens of a prompt."""
    known = [PAD, BEGIN, END, UNKNOWN, JOINT.strip(), *words]
    table = Tokenizer(models.WordLevel({word: i for i, word in enumerate(known)}, unk_token=UNKNOWN))
    table.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    table.decoder = decoders.WordPiece(prefix="##", cleanup=False)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=table,
        pad_token=PAD,
        bos_token=BEGIN,
        eos_token=END,
        unk_token=UNKNOWN,
        clean_up_tokenization_spaces=False,
        model_max_length=longest,
        padding_side="left",
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer
