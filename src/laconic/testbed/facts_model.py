"""``testbed/facts`` before training: a decoder, and a tokenizer whose words are the facts of `laconic.tasks.text.slots`."""

from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from laconic.tasks.text.slots import vocabulary
from laconic.testbed.word_tokenizer import word_tokenizer


def build_tokenizer() -> PreTrainedTokenizerFast:
    """One token for each word; words that no task uses are ``<unk>``."""
    return word_tokenizer(vocabulary(), 256)


def build_model(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """A fresh Llama-class model of 0.9 M parameters: 8 layers of width 96, 4 query and 2 key-value heads of 32."""
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=96,
        intermediate_size=256,
        num_hidden_layers=8,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=256,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    return LlamaForCausalLM(config)
