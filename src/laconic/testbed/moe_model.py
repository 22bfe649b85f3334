"""``testbed/moe`` before training: a mixture of experts, and a tokenizer of the words of `laconic.tasks.text.languages`."""

from transformers import MixtralConfig, MixtralForCausalLM, PreTrainedTokenizerFast

from laconic.tasks.text.languages import vocabulary
from laconic.testbed.word_tokenizer import word_tokenizer

LONGEST = 512


def build_tokenizer() -> PreTrainedTokenizerFast:
    """One token for each word; words that no task uses are ``<unk>``."""
    return word_tokenizer(vocabulary(), LONGEST)


def build_model(tokenizer: PreTrainedTokenizerFast, width: int = 128, neurons: int = 384) -> MixtralForCausalLM:
    """A fresh Mixtral-class model of 4.9 M parameters: 4 layers, each of 8 experts, of which 2 run per token.

    Args:
        width: of the hidden states, in heads of 32, two for each KV head. `neurons`: of each expert.
    """
    config = MixtralConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=neurons,
        num_hidden_layers=4,
        num_attention_heads=width // 32,
        num_key_value_heads=width // 64,
        head_dim=32,
        num_local_experts=8,
        num_experts_per_tok=2,
        router_aux_loss_coef=0.01,
        sliding_window=None,
        max_position_embeddings=LONGEST,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    return MixtralForCausalLM(config)
