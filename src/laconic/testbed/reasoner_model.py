"""A small model that thinks, before training: a decoder, and a tokenizer of digits, signs and the words of the problems."""

from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from laconic.tasks.reasoning.chains import MARK, STYLES
from laconic.tasks.reasoning.problems import CHANGES, NAMES, THINGS, TOLD

PAD, BEGIN, END, UNKNOWN, THINK, LATENT = ("<pad>", "<s>", "</s>", "<unk>", "<think>", "<latent>")
PIECES = r"[A-Za-z]+|\d|[^\sA-Za-z\d]"
"""A word, a digit or a sign is one token; spaces are none."""
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{{ message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}" + THINK + "{% endif %}"
)


def words() -> list[str]:
    """All words, digits and signs."""
    told = [word for ways in TOLD.values() for way in ways for word in way.split()]
    asked = [word for way in STYLES.values() for word in way.rstrip(".").split()]
    others = ["Start", "with", "Result", "List", "has", "How", "many", "wait", "check", "speed"]
    return list(dict.fromkeys([*"0123456789+-*=;:,.?", *others, *NAMES, *THINGS, *told, *asked, *CHANGES]))


def build_tokenizer() -> PreTrainedTokenizerFast:
    """One token for each word, digit and sign; others are ``<unk>``."""
    vocabulary = [PAD, BEGIN, END, UNKNOWN, THINK, LATENT, MARK, *words()]
    table = Tokenizer(models.WordLevel({word: i for i, word in enumerate(vocabulary)}, unk_token=UNKNOWN))
    table.pre_tokenizer = pre_tokenizers.Split(Regex(PIECES), "removed", invert=True)
    table.decoder = decoders.Fuse()
    table.add_tokens([AddedToken(MARK, normalized=False)])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=table,
        pad_token=PAD,
        bos_token=BEGIN,
        eos_token=END,
        unk_token=UNKNOWN,
        extra_special_tokens=[THINK, LATENT],
        clean_up_tokenization_spaces=False,
        model_max_length=512,
        padding_side="left",
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def build_model(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """A fresh Llama-class model of 1.34 M parameters: 4 layers of width 160, 5 heads of 32."""
    own: dict[str, Any] = {"end_of_thinking": MARK}
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=160,
        intermediate_size=480,
        num_hidden_layers=4,
        num_attention_heads=5,
        num_key_value_heads=5,
        head_dim=32,
        max_position_embeddings=512,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        **own,
    )
    return LlamaForCausalLM(config)
