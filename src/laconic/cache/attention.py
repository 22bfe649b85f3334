"""The attention seam: one function registered with transformers' `AttentionInterface`, one mask function under its name.

While nothing is compressed it runs the fastest exact kernel; after that it attends over the parts that the layer holds.
Layers that laconic leaves alone (sliding window, linear attention) get transformers' own mask and SDPA.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import causal_mask_function, sdpa_mask

from laconic.cache.incoming import NewEntries
from laconic.errors import SessionError, UnsupportedModelError

NAME = "laconic"


def register() -> None:
    """Make the name known to transformers. Registering twice is harmless; no existing entry is touched."""
    AttentionInterface.register(NAME, attention)
    AttentionMaskInterface.register(NAME, mask)


@contextmanager
def switched(stack: PreTrainedModel) -> Iterator[None]:
    """While open, the decoder `stack` attends through this seam; then it gets back the implementation that it had.

    Raises:
        SessionError: the decoder refuses it.
    """
    register()
    before = stack.config._attn_implementation
    try:
        stack.set_attn_implementation(NAME)
        if stack.config._attn_implementation != NAME:
            raise SessionError(f"{type(stack).__name__} refuses a registered attention function.")
        yield
    finally:
        stack.set_attn_implementation(before)


def attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor | NewEntries,
    value: torch.Tensor | NewEntries,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    softcap: float | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """query [B, H, T, D] against what the cache layer stores -> output [B, T, H, Dv]."""
    if kwargs.get("output_attentions"):
        raise SessionError("output_attentions is not available inside a session; run the model outside of it.")
    if dropout:
        raise SessionError("attention dropout is not applied inside a session; call model.eval() or set it to 0.")
    for name in ("s_aux", "position_bias"):
        if kwargs.get(name) is not None:
            raise UnsupportedModelError(
                f"{type(module).__name__} uses {name} in its attention, which laconic cannot merge yet."
            )
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    if isinstance(key, NewEntries):
        out = key.layer.attend(query, key.keys, key.values, scale, softcap)
        return out.transpose(1, 2).contiguous(), None
    assert isinstance(value, torch.Tensor)
    if _is_full(module):
        raise SessionError(
            f"{type(module).__name__} was called without the session's cache. Gradient checkpointing drops the cache: "
            "switch it off. Or another model shares this model's configuration object: give it a copy."
        )
    if softcap is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, dropout, scaling=scaling, **kwargs)
    return _softcapped(query, key, value, attention_mask, scale, softcap).transpose(1, 2).contiguous(), None


def _is_full(module: torch.nn.Module) -> bool:
    """A full-attention layer, whose mask is left out here because its cache layer knows what is visible."""
    config, layer = getattr(module, "config", None), getattr(module, "layer_idx", None)
    if config is None or layer is None:
        return False
    kinds = getattr(config, "layer_types", None)
    return kinds is None or kinds[layer] == "full_attention"


def _softcapped(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor | None, scale: float, softcap: float
) -> torch.Tensor:
    """Gemma 2's sliding layers: q [B, H, T, D], k, v [B, Hkv, n, D], mask bool [B, 1, T, n] or None -> [B, H, T, Dv]."""
    b, h, t, d = q.shape
    grouped = q.view(b, k.shape[1], -1, t, d)
    logits = softcap * torch.tanh(torch.matmul(grouped, k[:, :, None].transpose(-1, -2)).float() * scale / softcap)
    if mask is None:
        mask = torch.ones(t, k.shape[2], dtype=torch.bool, device=q.device).tril(k.shape[2] - t)[None, None]
    logits = logits.masked_fill(~mask[:, :, None], torch.finfo(logits.dtype).min)
    return torch.matmul(logits.softmax(-1).to(v.dtype), v[:, :, None]).view(b, h, t, -1)


def mask(
    *,
    mask_function: Callable[..., Any] = causal_mask_function,
    local_size: int | None = None,
    **kwargs: Any,
) -> torch.Tensor | None:
    """No mask for full-attention layers: the cache layer knows which entries are real and visible. Others get sdpa's."""
    if local_size is not None:
        return sdpa_mask(mask_function=mask_function, local_size=local_size, **kwargs)
    if mask_function is not causal_mask_function:
        raise UnsupportedModelError(
            "this model asks for an attention mask that is not plain causal (bidirectional or packed blocks); "
            "laconic supports causal decoders."
        )
    return None
