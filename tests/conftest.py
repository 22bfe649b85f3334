"""Tiny models with sharpened random weights: as drawn, attention is nearly uniform and removing an entry changes nothing."""

from collections.abc import Callable

import pytest
import torch
from helpers.vision_tools import random_vlm
from hypothesis import settings
from transformers import LlamaConfig, LlamaForCausalLM, LlavaForConditionalGeneration

from laconic.cache.layer import CompressedLayer

settings.register_profile("laconic", deadline=None, derandomize=True, max_examples=30)
settings.load_profile("laconic")
torch.set_num_threads(1)

VOCAB = 97


def sharpen(model: torch.nn.Module, factor: float = 10.0) -> torch.nn.Module:
    """Multiply the matrices (embeddings aside) so that attention logits have a deviation of about 1."""
    with torch.no_grad():
        for name, p in model.named_parameters():
            if p.ndim == 2 and "embed" not in name:
                p.mul_(factor)
    return model


def build_llama(
    *, layers: int = 4, heads: int = 4, kv_heads: int = 2, hidden: int = 32, seed: int = 0, implementation: str = "sdpa"
) -> LlamaForCausalLM:
    """A Llama with grouped queries, fp32, eval mode; equal seeds give equal weights whatever the implementation."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        vocab_size=VOCAB,
        pad_token_id=0,
        bos_token_id=None,
        eos_token_id=None,
        max_position_embeddings=2048,
        attn_implementation=implementation,
    )
    model = sharpen(LlamaForCausalLM(config).eval())
    model.requires_grad_(False)
    return model


@pytest.fixture(scope="session")
def llama() -> LlamaForCausalLM:
    """4 layers, 4 query heads on 2 KV heads."""
    return build_llama()


@pytest.fixture(scope="session")
def make_llama() -> Callable[..., LlamaForCausalLM]:
    """`make_llama(layers=, heads=, kv_heads=, hidden=, seed=, implementation=)` for tests that need another shape."""
    return build_llama


@pytest.fixture
def prompt() -> Callable[..., torch.Tensor]:
    """`prompt(batch, length, seed=0)` -> token ids without the padding id."""

    def ids(batch: int, length: int, seed: int = 0) -> torch.Tensor:
        return torch.randint(1, VOCAB, (batch, length), generator=torch.Generator().manual_seed(seed))

    return ids


@pytest.fixture
def passes(monkeypatch) -> dict[int, list[tuple[torch.Tensor, torch.Tensor]]]:
    """Layer number -> (queries [B, H, T, D], new keys [B, Hkv, T, D]) of every pass inside a session, RoPE applied."""
    seen: dict[int, list[tuple[torch.Tensor, torch.Tensor]]] = {}
    original = CompressedLayer.attend

    def attend(self, q, keys, values, scale, softcap):
        seen.setdefault(self.number, []).append((q.clone(), keys.clone()))
        return original(self, q, keys, values, scale, softcap)

    monkeypatch.setattr(CompressedLayer, "attend", attend)
    return seen


@pytest.fixture(scope="session")
def vlm() -> LlavaForConditionalGeneration:
    """A LLaVA-class model with random weights; `vision_tools.inputs` makes prompts for it."""
    return random_vlm()
