"""Models that do not fit are refused with an error that says why, and stay as they were."""

import pytest
import torch
import transformers
from helpers.zoo import MIXED, Tiny, prompt

import laconic
from laconic import SnapKV, UnsupportedModelError

GEMMA4 = {"sliding_window": 8, "layer_types": MIXED, "hidden_size_per_layer_input": 8, "vocab_size_per_layer_input": 97}
AT_COMPRESS = {
    "all-sliding": (Tiny("Mistral", {"sliding_window": 8}), "no full-attention layer to compress"),
    "hybrid-in-one": (Tiny("FalconH1"), "no full-attention layer to compress"),
    "shared-kv": (
        Tiny("Gemma4", GEMMA4 | {"num_kv_shared_layers": 2, "global_head_dim": 16}, config_prefix="Gemma4Text"),
        "shares keys and values between layers",
    ),
    "mixed-heads": (
        Tiny("Gemma4", GEMMA4 | {"num_kv_shared_layers": 0, "global_head_dim": 32}, config_prefix="Gemma4Text"),
        "layers differ in shape",
    ),
    "gpt-neox": (Tiny("GPTNeoX"), "no decoder with a `.layers` list"),
    "mamba": (Tiny("Mamba"), "no decoder with a `.layers` list"),
}
AT_THE_CALL = {
    "sinks": (Tiny("GptOss", {"num_local_experts": 4, "num_experts_per_tok": 2}), "uses s_aux in its attention"),
    "differential": (Tiny("DiffLlama"), "between the cache and the attention function"),
}


@pytest.mark.parametrize("case", AT_COMPRESS)
def test_refused_before_any_work(case):
    tiny, message = AT_COMPRESS[case]
    with pytest.raises(UnsupportedModelError, match=message):
        laconic.compress(tiny.build("eager"), SnapKV(keep=0.5))


@pytest.mark.parametrize("case", AT_THE_CALL)
def test_refused_at_the_first_call(case):
    tiny, message = AT_THE_CALL[case]
    model = tiny.build("eager")
    before = model(prompt()).logits
    with pytest.raises(UnsupportedModelError, match=message), laconic.compress(model, SnapKV(keep=0.5)):
        model(prompt())
    assert model.config._attn_implementation == "eager"
    assert torch.equal(model(prompt()).logits, before)


def small(name):
    shared = {"vocab_size": 97, "num_hidden_layers": 2}
    if name == "GPT2LMHeadModel":
        return transformers.GPT2LMHeadModel(transformers.GPT2Config(vocab_size=97, n_embd=32, n_layer=2, n_head=2))
    if name == "T5ForConditionalGeneration":
        config = transformers.T5Config(**shared, d_model=32, d_ff=32, d_kv=8, num_layers=2, num_heads=2)
        return transformers.T5ForConditionalGeneration(config)
    if name == "BartForCausalLM":
        config = transformers.BartConfig(
            **shared, d_model=32, decoder_layers=2, decoder_attention_heads=2, decoder_ffn_dim=32
        )
        return transformers.BartForCausalLM(config)
    config = transformers.OPTConfig(**shared, hidden_size=32, ffn_dim=32, num_attention_heads=2, word_embed_proj_dim=32)
    return transformers.OPTForCausalLM(config)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("GPT2LMHeadModel", "no decoder with a `.layers` list"),
        ("T5ForConditionalGeneration", "no decoder with a `.layers` list"),
        ("OPTForCausalLM", r"no (decoder with a `.layers` list|rotary embedding)"),
        ("BartForCausalLM", r"no (decoder with a `.layers` list|rotary embedding)"),
    ],
)
def test_other_architectures(name, message):
    with pytest.raises(UnsupportedModelError, match=message):
        laconic.compress(small(name), SnapKV(keep=0.5))


def test_a_model_that_is_not_from_transformers():
    with pytest.raises(UnsupportedModelError, match="needs a transformers model, got Linear"):
        laconic.compress(torch.nn.Linear(2, 2), SnapKV(keep=0.5))


def test_unknown_rope_layouts_are_refused():
    model = Tiny("Olmo2").build()
    with (
        pytest.raises(UnsupportedModelError, match="choose a method that uses queries as they are"),
        laconic.compress(model, laconic.ExpectedAttention(keep=0.5)),
    ):
        model(prompt())
