"""Llama-like decoders: `model.layers[i].self_attn`, one half-split RoPE for all layers."""

from laconic.families.base import Family, add

LLAMA = add(Family("llama", ("llama",)))
MISTRAL = add(Family("mistral", ("mistral",)))
QWEN2 = add(Family("qwen2", ("qwen2",)))
QWEN3 = add(Family("qwen3", ("qwen3",)))
PHI3 = add(Family("phi3", ("phi3",)))
