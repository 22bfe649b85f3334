"""Which model families work: a tiny random model of every class, run inside a session and without one.

Run: python benchmarks/families.py   (about a minute; writes benchmarks/results/families.json)
"""

from __future__ import annotations

import json
import platform
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

import laconic

OUT = Path(__file__).parent / "results" / "families.json"
SIZES: dict[str, Any] = {
    "vocab_size": 97,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 512,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": None,
    "attention_dropout": 0.0,
}
EXPERTS = {"num_local_experts": 4, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
ROUTED = EXPERTS | {"n_routed_experts": 4, "n_group": 1, "topk_group": 1, "first_k_dense_replace": 1}
LATENT = ROUTED | {
    "kv_lora_rank": 16, "q_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 16, "v_head_dim": 16,
    "num_key_value_heads": 4,
}  # fmt: skip
WINDOWS = {"sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"] * 2}
RECURRENT = {
    "layer_types": ["linear_attention", "full_attention"] * 2, "linear_num_key_heads": 2, "linear_num_value_heads": 4,
    "linear_key_head_dim": 16, "linear_value_head_dim": 16, "shared_expert_intermediate_size": 32,
}  # fmt: skip
MAMBA = {"mamba_n_heads": 4, "mamba_d_head": 32, "mamba_d_state": 16, "mamba_n_groups": 1}
GPT2 = {"n_embd": 64, "n_layer": 2, "n_head": 4}
FAMILIES: dict[str, dict[str, Any]] = {
    "apertus": {}, "arcee": {}, "bitnet": {}, "cohere": {}, "ernie4_5": {}, "exaone4": WINDOWS, "gemma": {}, "glm": {},
    "glm4": {}, "gpt_neox": {}, "granite": {}, "helium": {}, "hunyuan_v1_dense": {}, "llama": {}, "nemotron": {},
    "olmo": {}, "olmo2": {}, "persimmon": {"num_key_value_heads": 4}, "phi": {}, "qwen2": {}, "qwen3": {}, "seed_oss": {},
    "smollm3": {"no_rope_layers": [1, 1, 1, 0]}, "stablelm": {"partial_rotary_factor": 0.25},
    "mistral": {"sliding_window": None}, "phi3": {"sliding_window": None}, "starcoder2": {"sliding_window": None},
    "cohere2": WINDOWS, "gemma2": WINDOWS | {"query_pre_attn_scalar": 16}, "ministral": WINDOWS, "olmo3": WINDOWS,
    "gemma3_text": WINDOWS | {"query_pre_attn_scalar": 16}, "vaultgemma": WINDOWS,
    "lfm2": {"layer_types": ["conv", "full_attention"] * 2},
    "llama4_text": EXPERTS | {
        "layer_types": ["chunked_attention", "full_attention"] * 2, "no_rope_layers": [1, 0, 1, 0],
        "attention_chunk_size": 16, "intermediate_size_mlp": 64, "num_experts_per_tok": 1, "interleave_moe_layer_step": 2,
    },
    "dots1": ROUTED | {"n_shared_experts": 1}, "glm4_moe": ROUTED, "granitemoe": EXPERTS,
    "mixtral": EXPERTS | {"sliding_window": None}, "olmoe": EXPERTS, "phimoe": EXPERTS | {"sliding_window": None},
    "qwen2_moe": EXPERTS | {"shared_expert_intermediate_size": 32}, "qwen3_moe": EXPERTS,
    "qwen3_next": EXPERTS | RECURRENT, "bamba": MAMBA | {"attn_layer_indices": [1, 3]},
    "deepseek_v2": LATENT, "deepseek_v3": LATENT, "minicpm3": LATENT,
    "gpt_oss": EXPERTS | WINDOWS, "diffllama": {}, "doge": {},
    "minimax": EXPERTS | {"layer_types": RECURRENT["layer_types"]},
    "falcon_h1": MAMBA | {"mamba_d_ssm": 128}, "falcon": {"alibi": False},
    "jamba": {"num_experts": 2, "mamba_dt_rank": 4, "attn_layer_period": 2, "attn_layer_offset": 1},
    "mamba": {}, "mamba2": {"num_heads": 4, "head_dim": 32, "state_size": 16, "n_groups": 1},
    "gpt2": GPT2, "gptj": GPT2 | {"rotary_dim": 8}, "bloom": {"n_layer": 2, "n_head": 4},
    "mpt": {"d_model": 64, "n_layers": 2, "n_heads": 4}, "opt": {"ffn_dim": 96, "word_embed_proj_dim": 64},
}  # fmt: skip
"""Model types of transformers' decoders of text, each with what its configuration needs beside `SIZES` to be small."""
METHODS = {
    "attention": "snapkv:keep=0.25,window=4",
    "decoding": "streaming_llm:keep=0.25",
    "RoPE": "expected_attention:keep=0.25",
}
"""One method of each kind: what looks at attention, what evicts while decoding, what undoes RoPE."""


def build(kind: str) -> PreTrainedModel:
    """A random model of this type, in eval mode, with attention far from uniform."""
    usual = AutoConfig.for_model(kind)
    computed = {name for name in SIZES if isinstance(getattr(type(usual), name, None), property)}
    fits = {name: value for name, value in SIZES.items() if hasattr(usual, name) and name not in computed}
    config = AutoConfig.for_model(kind, **fits | FAMILIES[kind])
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    for parameter in model.parameters():
        if parameter.ndim == 2:
            parameter.normal_(0, 0.2)
    model.generation_config.update(pad_token_id=0, eos_token_id=None)
    return model


def tried(model: PreTrainedModel, ids: torch.Tensor) -> dict[str, Any]:
    """What becomes of a session on `model`: why it is refused, or how far its logits are from the stock model's, in
    prefill and in decoding, and which methods run."""
    plain = {"max_new_tokens": 8, "do_sample": False, "output_logits": True, "return_dict_in_generate": True}
    try:
        session = laconic.compress(model)
    except laconic.UnsupportedModelError as refusal:
        return {"works": False, "why": str(refusal)}
    stock = model(ids).logits, torch.stack(model.generate(ids, **plain).logits)
    try:
        with session:
            ours = model(ids).logits, torch.stack(model.generate(ids, **plain).logits)
    except laconic.UnsupportedModelError as refusal:
        return {"works": False, "why": str(refusal), "late": True}
    gap = max(float((a - b).abs().max() / b.abs().max()) for a, b in zip(ours, stock, strict=True))
    methods: dict[str, str | None] = {}
    for name, spec in METHODS.items():
        methods[name] = None
        try:
            with laconic.compress(model, spec):
                model.generate(ids, **plain)
        except laconic.UnsupportedModelError as refusal:
            methods[name] = str(refusal)
    return {"works": True, "gap": gap, "left_alone": list(session.left_alone.values()), "methods": methods}


@torch.no_grad()
def main() -> None:
    """Try every family and write what became of it."""
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    ids = torch.randint(2, 97, (1, 40), generator=torch.Generator().manual_seed(3))
    families = {}
    for kind in sorted(FAMILIES):
        model = build(kind)
        families[kind] = {"class": type(model).__name__} | tried(model, ids)
        print(kind, "works" if families[kind]["works"] else f"refused: {families[kind]['why'][:80]}", flush=True)
    versions = {"torch": torch.__version__, "transformers": transformers.__version__, "python": platform.python_version()}
    OUT.write_text(json.dumps(versions | {"families": families}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
