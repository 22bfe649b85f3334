"""Models that do not fit are refused with an error that says why, and stay as they were."""

import pytest
import torch
import transformers
from helpers.vision_zoo import CASES
from helpers.zoo import MIXED, Tiny, prompt

import laconic
from laconic import EMS, AdaKV, ExpectedAttention, SnapKV, TreeKV, UnsupportedModelError
from laconic.families.base import GENERIC

GEMMA4 = {"sliding_window": 8, "layer_types": MIXED, "hidden_size_per_layer_input": 8, "vocab_size_per_layer_input": 97}
LATENT = {"kv_lora_rank": 16, "q_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 16, "v_head_dim": 16}
AT_COMPRESS = {
    "all-sliding": (Tiny("Mistral", {"sliding_window": 8}), "linear-attention layers are bounded already"),
    "hybrid-in-one": (Tiny("FalconH1"), "every layer keeps a recurrent state beside its keys"),
    "shared-kv": (
        Tiny("Gemma4", GEMMA4 | {"num_kv_shared_layers": 2, "global_head_dim": 16}, config_prefix="Gemma4Text"),
        "shares keys and values between layers",
    ),
    "mixed-heads": (
        Tiny("Gemma4", GEMMA4 | {"num_kv_shared_layers": 0, "global_head_dim": 32}, config_prefix="Gemma4Text"),
        "layers differ in shape",
    ),
    "mamba": (Tiny("Mamba"), "MambaModel has no attention layers"),
    "latents": (
        Tiny("DeepseekV3", LATENT | {"n_routed_experts": 4, "n_group": 1, "topk_group": 1, "first_k_dense_replace": 4}),
        "keeps latents in its cache.*MLA",
    ),
    "sinks": (
        Tiny("GptOss", {"num_local_experts": 4, "num_experts_per_tok": 2}),
        "learned sinks .`layers.0.self_attn.sinks`",
    ),
    "differential": (Tiny("DiffLlama"), "differential attention, `layers.0.self_attn.lambda_q1`"),
    "own-cache": (
        Tiny("MiniMax", {"num_local_experts": 2, "layer_types": ["linear_attention", "full_attention"] * 2}),
        "insists on a cache class of its own .MiniMaxCache",
    ),
    "no-rope": (
        Tiny("Jamba", {"num_experts": 2, "mamba_dt_rank": 4, "attn_layer_period": 2, "attn_layer_offset": 1}),
        "JambaModel has no rotary embedding",
    ),
}
AT_THE_CALL = {"values-reused": (Tiny("Doge"), "between the cache and the attention function")}


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
    if name == "FalconForCausalLM":
        config = transformers.FalconConfig(**shared, hidden_size=32, num_attention_heads=2)
        return transformers.FalconForCausalLM(config)
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
        ("GPT2LMHeadModel", "GPT2LMHeadModel has no rotary embedding"),
        ("T5ForConditionalGeneration", "is an encoder-decoder"),
        ("OPTForCausalLM", "OPTDecoder has no rotary embedding"),
        ("BartForCausalLM", "BartDecoder has no rotary embedding"),
        ("FalconForCausalLM", "does not route its attention through transformers' AttentionInterface"),
    ],
)
def test_other_architectures(name, message):
    with pytest.raises(UnsupportedModelError, match=message):
        laconic.compress(small(name), SnapKV(keep=0.5))


def test_a_model_that_is_not_from_transformers():
    with pytest.raises(UnsupportedModelError, match="needs a transformers model, got Linear"):
        laconic.compress(torch.nn.Linear(2, 2), SnapKV(keep=0.5))


class Outer(torch.nn.Module):
    """A module around layers that no adapter knows."""

    def __init__(self):
        super().__init__()
        self.blocks = torch.nn.ModuleList()
        self.rotary_emb, self.attention = torch.nn.Identity(), torch.nn.Identity()


def test_layers_that_are_nowhere_to_be_found():
    with pytest.raises(UnsupportedModelError, match=r"Outer has no decoder with a `\.layers` list"):
        GENERIC.stack(Outer())


UNDOING = {
    "expected_attention": lambda: ExpectedAttention(keep=0.5),
    "adakv": lambda: AdaKV(keep=0.5, scorer="expected_attention"),
    "ems": lambda: EMS(keep=0.5, merge_space="pre_rope"),
    "treekv": lambda: TreeKV(keep=0.5, positions="rank"),
}
PLAIN = {"adakv": AdaKV, "ems": EMS, "treekv": TreeKV}


@pytest.mark.parametrize("name", UNDOING)
def test_methods_that_undo_rope_are_refused_where_its_layout_is_unknown(name):
    model = Tiny("Olmo2").build()
    with pytest.raises(UnsupportedModelError, match=f"{name} undoes RoPE, and laconic does not know how olmo2 lays out"):
        laconic.compress(model, UNDOING[name]())
    assert laconic.compress(Tiny("Llama").build(), UNDOING[name]())
    if name in PLAIN:
        assert laconic.compress(model, PLAIN[name](keep=0.5))


def test_a_neutral_method_undoes_nothing():
    assert laconic.compress(Tiny("Olmo2").build(), ExpectedAttention(keep=1.0))


def test_several_positions_per_token_are_refused_before_any_image_is_read():
    with pytest.raises(UnsupportedModelError, match="undoes RoPE, and tokens of qwen2_vl_text have several positions"):
        laconic.compress(CASES["qwen2_vl"].build(), ExpectedAttention(keep=0.5))
