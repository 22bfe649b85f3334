"""Tiny random models of the real transformers classes: four layers, GQA, a vocabulary of 97."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
import transformers
from transformers import PreTrainedModel

SHARED: dict[str, Any] = {
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
    "tie_word_embeddings": False,
}
MIXED = ["sliding_attention", "full_attention", "sliding_attention", "full_attention"]


@dataclass(frozen=True)
class Tiny:
    """One model to build.

    Attributes:
        prefix: of the transformers classes, `{prefix}Config` and `{prefix}ForCausalLM`.
        extra: configuration beside `SHARED`.
        full: layers that laconic compresses; the others are left alone.
        family: name of the adapter that it must get.
    """

    prefix: str
    extra: dict[str, Any] = field(default_factory=dict)
    full: tuple[int, ...] = (0, 1, 2, 3)
    family: str = "generic"
    config_prefix: str | None = None

    def build(self, implementation: str = "sdpa", **changes: Any) -> PreTrainedModel:
        config_class = getattr(transformers, f"{self.config_prefix or self.prefix}Config")
        config = config_class(**SHARED | self.extra | changes)
        config._attn_implementation = implementation
        torch.manual_seed(0)
        model = getattr(transformers, f"{self.prefix}ForCausalLM")(config).eval().requires_grad_(False)
        generator = torch.Generator().manual_seed(1)
        for parameter in model.parameters():  # larger than the usual 0.02, so that attention is far from uniform
            if parameter.ndim == 2:
                parameter.data.normal_(0, 0.2, generator=generator)
        model.generation_config.eos_token_id = None
        model.generation_config.pad_token_id = 0
        return model


PROVEN = {
    "llama": Tiny("Llama", family="llama"),
    "llama-yarn": Tiny(
        "Llama",
        {
            "rope_parameters": {
                "rope_type": "yarn",
                "rope_theta": 10000.0,
                "factor": 4.0,
                "original_max_position_embeddings": 64,
            }
        },
        family="llama",
    ),
    "mistral": Tiny("Mistral", {"sliding_window": None}, family="mistral"),
    "qwen2": Tiny("Qwen2", family="qwen2"),
    "qwen2-sliding": Tiny(
        "Qwen2",
        {"use_sliding_window": True, "sliding_window": 8, "layer_types": MIXED},
        full=(1, 3),
        family="qwen2",
    ),
    "qwen3": Tiny("Qwen3", family="qwen3"),
    "gemma2": Tiny(
        "Gemma2",
        {"sliding_window": 8, "query_pre_attn_scalar": 16, "attn_logit_softcapping": 5.0, "layer_types": MIXED},
        full=(1, 3),
        family="gemma2",
    ),
    "gemma3": Tiny(
        "Gemma3",
        {"sliding_window": 8, "query_pre_attn_scalar": 16, "layer_types": MIXED},
        full=(1, 3),
        family="gemma3",
        config_prefix="Gemma3Text",
    ),
    "phi3": Tiny("Phi3", family="phi3"),
    "phi3-partial": Tiny("Phi3", {"partial_rotary_factor": 0.5}, family="phi3"),
}
GENERIC = {
    "gpt-neox": Tiny("GPTNeoX", {"num_key_value_heads": 4}),
    "cohere": Tiny("Cohere", {"use_qk_norm": True}),
    "cohere2": Tiny("Cohere2", {"sliding_window": 8, "layer_types": MIXED}, full=(1, 3)),
    "glm": Tiny("Glm"),
    "glm4": Tiny("Glm4"),
    "olmo2": Tiny("Olmo2"),
    "smollm3": Tiny("SmolLM3", {"no_rope_layers": [1, 1, 1, 0]}),
    "granite": Tiny("Granite"),
    "starcoder2": Tiny("Starcoder2", {"sliding_window": None}),
    "stablelm": Tiny("StableLm"),
    "qwen3-moe": Tiny("Qwen3Moe", {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}),
    "mixtral": Tiny("Mixtral", {"num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": None}),
    "qwen3-next": Tiny(
        "Qwen3Next",
        {
            "layer_types": ["linear_attention", "full_attention", "linear_attention", "full_attention"],
            "num_experts": 4,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 32,
            "shared_expert_intermediate_size": 32,
            "linear_key_head_dim": 16,
            "linear_value_head_dim": 16,
            "linear_num_key_heads": 2,
            "linear_num_value_heads": 4,
        },
        full=(1, 3),
    ),
}
ALL = PROVEN | GENERIC

SCALED_ROPE: dict[str, dict[str, Any]] = {
    "dynamic": {"rope_type": "dynamic", "factor": 4.0},
    "longrope": {
        "rope_type": "longrope", "factor": 8.0, "original_max_position_embeddings": 64,
        "short_factor": [1.0 + i / 10 for i in range(8)], "long_factor": [2.0 + 1.5 * i for i in range(8)],
    },
    "yarn": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64},
    "linear": {"rope_type": "linear", "factor": 4.0},
    "llama3": {
        "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    },
}  # fmt: skip
"""Rope scaling of every kind: frequencies of the first two depend on how far a pass reaches, and change at 64 positions."""


def scaled(kind: str) -> PreTrainedModel:
    """The tiny Llama with this kind of rope scaling."""
    reach = {"max_position_embeddings": 64} if kind == "dynamic" else {}
    return ALL["llama"].build(rope_parameters=SCALED_ROPE[kind] | {"rope_theta": 10000.0}, **reach)


def prompt(rows: int = 1, tokens: int = 40, seed: int = 3) -> torch.Tensor:
    """Random token ids [rows, tokens] without special ones."""
    return torch.randint(2, 97, (rows, tokens), generator=torch.Generator().manual_seed(seed))
