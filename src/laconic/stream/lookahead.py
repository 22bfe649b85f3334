"""What the next layer will attend to, computed ahead from the stream: queries of a few rows, keys of all rows."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from laconic.cache.observe import rotate
from laconic.errors import UnsupportedModelError
from laconic.families.base import GENERIC
from laconic.families.rotary import phases
from laconic.step import gather
from laconic.stream.phases import as_used
from laconic.stream.stream import Stream

LAYOUT = ("q_proj", "k_proj", "head_dim", "scaling")


def queries_and_keys(stream: Stream, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Queries of the stream's `rows` [B, r] and keys of all its rows in the next layer, as its attention will see them:
    after its input norm, its projections, q- and k-norm where it has them, and RoPE at the stream's positions.

    Returns:
        queries [B, H, r, d] and keys [B, Hkv, n, d]. Keys of padding and queries of a row -1 are meaningless.

    Raises:
        UnsupportedModelError: the layer is not laid out like those of Llama, Qwen2 and Qwen3.
    """
    attention = _attention(stream.block)
    hidden = stream.block.input_layernorm(stream.hidden)  # type: ignore[operator]
    cos, sin = _phases(stream)
    rows = rows.clamp(min=0)
    queries = _heads(attention, "q", gather(hidden, rows, 1))
    keys = _heads(attention, "k", hidden)
    queries = rotate(queries, gather(cos, rows, 1), gather(sin, rows, 1)).to(hidden.dtype)
    return queries, rotate(keys, cos, sin).to(hidden.dtype)


def attention_of(stream: Stream, rows: Tensor) -> Tensor:
    """Attention that `rows` [B, r] of the stream will pay to all its rows in the next layer, fp32 [B, H, r, n].

    Causal in the order of the stream; padding receives nothing, and a row -1 pays nothing. Entries of earlier passes in the
    cache are left out: the softmax runs over this pass only.
    """
    queries, keys = queries_and_keys(stream, rows)
    (b, h, r, d), (hkv, n) = queries.shape, keys.shape[1:3]
    scale = _attention(stream.block).scaling
    grouped = (queries * scale).reshape(b, hkv, h // hkv * r, d)
    logits = (grouped @ keys.mT).float().view(b, hkv, h // hkv, r, n).reshape(b, h, r, n)
    sees = torch.arange(n, device=rows.device) <= rows[..., None]
    if stream.valid is not None:
        sees = sees & stream.valid[:, None]
    weights = logits.masked_fill(~sees[:, None], float("-inf")).softmax(-1)
    return weights.masked_fill(~sees.any(-1)[:, None, :, None], 0.0)


def last_rows(stream: Stream) -> Tensor:
    """The last token of every batch row, [B, 1]: prompts are padded on the left."""
    return torch.full((len(stream.hidden), 1), stream.hidden.shape[1] - 1, device=stream.hidden.device)


def _attention(block: nn.Module) -> Any:
    attention: Any = getattr(block, "self_attn", None)
    missing = [name for name in LAYOUT if not hasattr(attention, name)]
    if not hasattr(block, "input_layernorm"):
        missing.insert(0, "input_layernorm")
    head_norms = all(
        getattr(attention, f"{x}_norm", None) is None
        or getattr(attention, f"{x}_norm").weight.shape == (attention.head_dim,)
        for x in "qk"
    )
    if missing or not head_norms or getattr(attention, "attn_logit_softcapping", None):
        why = f"without {', '.join(missing)}" if missing else "with another q-norm or soft-capped logits"
        raise UnsupportedModelError(
            f"{type(block).__name__} {why}: attention can be computed ahead only for layers laid out like those of Llama, "
            "Qwen2 and Qwen3. Use a method that reads the attention of a layer that has run, or no attention at all."
        )
    return attention


def _heads(attention: Any, which: str, hidden: Tensor) -> Tensor:
    """hidden [B, n, D], after the input norm -> [B, heads, n, d]."""
    x = getattr(attention, f"{which}_proj")(hidden).unflatten(-1, (-1, attention.head_dim))
    norm = getattr(attention, f"{which}_norm", None)
    return (x if norm is None else norm(x)).transpose(1, 2)


def _phases(stream: Stream) -> tuple[Tensor, Tensor]:
    """(cos, sin) of the stream, [B or 1, n, d]; before layer 0 the decoder has not computed them yet."""
    stack = GENERIC.stack(stream.visual.model)
    if stream.phases is not None:
        cos, sin = stream.phases
        return as_used(cos, stack), as_used(sin, stack)
    positions = stream.positions[-3:] if stream.positions.ndim == 3 else stream.positions  # a 4th is for packing only
    cos, sin = phases(stack.rotary_emb, stream.hidden, positions, within=positions)  # type: ignore[arg-type]
    return as_used(cos, stack), as_used(sin, stack)
