"""Exact grouped-query attention that returns its log-sum-exp, and the exact merge of partial attentions.

Keys and values are never repeated per query head: the G query heads of a KV head become G (or G x T) query rows.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from laconic.ops import compiled, triton_decode

_BLOCK = 512  # query rows per block of the masked path: bounds the score matrix to block x keys
_SCORES = 1 << 20


def attend(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    scale: float,
    *,
    causal: bool = False,
    bias: torch.Tensor | None = None,
    softcap: float | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """q [B, H, T, D], k [B, Hkv, n, D], v [B, Hkv, n, Dv] -> output [B, H, T, Dv], lse [B, H, T] (fp32).

    Args:
        causal: query i sees keys 0..i (needs ``n == T``).
        bias: additive logits per key, broadcastable to [B, Hkv, n]; -inf hides a key. A query that sees nothing
            returns zeros and lse = -inf.
        softcap: ``softcap * tanh(logits / softcap)`` before the bias (Gemma 2).
    """
    if k.shape[2] == 0:
        return q.new_zeros(*q.shape[:3], v.shape[-1]), q.new_full(q.shape[:3], float("-inf"), dtype=torch.float32)
    if not causal and triton_decode.available(q, k, v):
        return triton_decode.attend_dense(q, k, v, scale, bias=bias, softcap=softcap)
    if not causal and softcap is None and compiled.serves(q, k, v):
        return compiled.attend_dense(q, k, v, scale, bias=bias)
    plain = softcap is None and bias is None
    if q.device.type == "cpu" and softcap is None and (plain or not causal) and q.dtype != torch.float16:
        if not causal:
            return _rows(q, k, v, scale, bias)
        return _causal_cpu(q, k, v, scale)
    return _blocked(q, k, v, scale, causal, bias, softcap)


def attend_alone(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scale: float, *, causal: bool = False, softcap: float | None = None
) -> torch.Tensor:
    """The output of `attend` alone, [B, H, T, Dv], where no merge follows.

    Where the compiled loop does not serve, torch's public SDPA is then the fastest exact kernel; it does not return its
    log-sum-exp. On the CPU it repeats keys per query head where a mask is needed, and has no fast path for float16.
    """
    if not causal and softcap is None and compiled.serves(q, k, v):
        return compiled.attend_dense(q, k, v, scale)[0]
    if softcap is not None or (q.device.type == "cpu" and (causal or q.dtype == torch.float16)):
        return attend(q, k, v, scale, causal=causal, softcap=softcap)[0]
    return _sdpa(q, k, v, scale, causal)


def _sdpa(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scale: float, causal: bool) -> torch.Tensor:
    """SDPA, with the queries of a group as rows where every query sees every key."""
    if causal:
        return F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scale, enable_gqa=True)
    b, h, t, d = q.shape
    rows = q.reshape(b, k.shape[1], h // k.shape[1] * t, d)
    out = F.scaled_dot_product_attention(_fast(rows), k, v, scale=scale)
    return out[:, :, : rows.shape[2]].reshape(b, h, t, -1)


def _fast(rows: torch.Tensor) -> torch.Tensor:
    """rows [B, Hkv, r, D], doubled where torch's kernel is four times slower with one: a single bfloat16 row on the CPU."""
    alone = rows.shape[2] == 1 and rows.dtype == torch.bfloat16 and rows.device.type == "cpu"
    return rows.repeat(1, 1, 2, 1) if alone else rows


def _rows(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scale: float, bias: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Every query sees every key: the G x T queries of a KV head are just rows of one flash call."""
    b, h, t, d = q.shape
    rows = _fast(q.reshape(b, k.shape[1], h // k.shape[1] * t, d))
    mask = None
    if bias is not None:
        bias = bias.expand(b, k.shape[1], k.shape[2])
        # a finite floor keeps nan out of the kernel; rows that see nothing are cleared below
        mask = bias.to(q.dtype).clamp(min=torch.finfo(q.dtype).min / 2)[:, :, None, :].expand(-1, -1, rows.shape[2], -1)
    out, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(rows, k, v, attn_mask=mask, scale=scale)
    if bias is not None:
        blind = torch.isneginf(bias).all(-1)[:, :, None]
        out, lse = out.masked_fill(blind[..., None], 0), lse.masked_fill(blind, float("-inf"))
    own = h // k.shape[1] * t
    return out[:, :, :own].reshape(b, h, t, -1), lse[:, :, :own].reshape(b, h, t)


def _causal_cpu(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scale: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Causal flash, one call per query head of the group on strided views: nothing is repeated."""
    b, h, t, d = q.shape
    hkv = k.shape[1]
    grouped = q.view(b, hkv, h // hkv, t, d)
    out = q.new_empty(b, hkv, h // hkv, t, v.shape[-1])
    lse = torch.empty(b, hkv, h // hkv, t, dtype=torch.float32, device=q.device)
    for g in range(h // hkv):
        part = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(grouped[:, :, g], k, v, 0.0, True, scale=scale)
        out[:, :, g], lse[:, :, g] = part
    return out.view(b, h, t, -1), lse.view(b, h, t)


def _blocked(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    scale: float,
    causal: bool,
    bias: torch.Tensor | None,
    softcap: float | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The general path (padding inside a causal block, softcap, other devices), in blocks of query rows."""
    b, h, t, d = q.shape
    hkv, n = k.shape[1], k.shape[2]
    grouped = q.view(b, hkv, h // hkv, t, d)
    if bias is not None:
        bias = bias.expand(b, hkv, n)[:, :, None, None, :].float()
    outs, lses = [], []
    for start in range(0, t, _BLOCK):
        rows = grouped[:, :, :, start : start + _BLOCK]
        stop = start + rows.shape[3]
        seen = stop if causal else n
        logits = torch.matmul(rows * scale, k[:, :, None, :seen].transpose(-1, -2)).float()
        if softcap is not None:
            logits = softcap * torch.tanh(logits / softcap)
        if bias is not None:
            logits = logits + bias[..., :seen]
        if causal:
            row = torch.arange(start, stop, device=q.device)
            future = torch.arange(seen, device=q.device) > row[:, None]
            logits = logits.masked_fill(future, float("-inf"))
        lse = logits.logsumexp(-1)
        weights = torch.exp(logits - lse.masked_fill(torch.isneginf(lse), 0)[..., None])
        outs.append(torch.matmul(weights.to(v.dtype), v[:, :, None, :seen]))
        lses.append(lse)
    return torch.cat(outs, 3).reshape(b, h, t, -1), torch.cat(lses, 3).reshape(b, h, t)


def attend_padded(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scale: float, starts: list[int], softcap: float | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Causal attention of left-padded rows: q [B, H, T, D], k, v [B, Hkv, T, D], row b real from `starts[b]` on.

    Every sequence is attended by itself without its padding, so no mask is built and padding costs nothing. Padding returns
    zeros and lse = -inf. -> output [B, H, T, Dv], lse [B, H, T].
    """
    b, h, t, _ = q.shape
    out = q.new_zeros(b, h, t, v.shape[-1])
    lse = torch.full((b, h, t), float("-inf"), device=q.device)
    for row, start in enumerate(starts):
        if start < t:
            own = slice(row, row + 1), slice(None), slice(start, None)
            out[own], lse[own] = attend(q[own], k[own], v[own], scale, causal=True, softcap=softcap)
    return out, lse


def attend_beside(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    scale: float,
    drafts: int,
    pseudo: int,
    valid: torch.Tensor | None = None,
    softcap: float | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """`attend` where two continuations follow one prompt and do not see each other: q, k, v [B, H or Hkv, T, D] are the
    prompt, then `drafts` tokens, then `pseudo` ones; each sees the prompt and its own kind before it.

    Args:
        valid: False at the prompt's (left) padding, [B, T - pseudo]; None without any.
    """
    t = q.shape[2] - pseudo
    n = t - drafts
    padding = None
    if valid is None:
        main = attend(q[:, :, :t], k[:, :, :t], v[:, :, :t], scale, causal=True, softcap=softcap)
    else:
        main = attend_padded(q[:, :, :t], k[:, :, :t], v[:, :, :t], scale, (~valid).sum(-1).tolist(), softcap)
        padding = torch.zeros(valid[:, None, :n].shape, device=q.device).masked_fill(~valid[:, None, :n], float("-inf"))
    asks = q[:, :, t:]
    over_prompt = attend(asks, k[:, :, :n], v[:, :, :n], scale, bias=padding, softcap=softcap)
    beside = merge([over_prompt, attend(asks, k[:, :, t:], v[:, :, t:], scale, causal=True, softcap=softcap)])
    return torch.cat([main[0], beside[0]], 2), torch.cat([main[1], beside[1]], 2)


def merge(parts: list[tuple[torch.Tensor, torch.Tensor]]) -> tuple[torch.Tensor, torch.Tensor]:
    """[(output [B, H, T, D], lse [B, H, T]), ...] -> the attention over the union of their keys, exactly.

    ``lse = logaddexp(lse_a, lse_b); out = out_a * exp(lse_a - lse) + out_b * exp(lse_b - lse)``.
    """
    out, lse = parts[0]
    if len(parts) == 1:
        return out, lse
    dtype = out.dtype
    out = out.float()
    for other, other_lse in parts[1:]:
        total = torch.logaddexp(lse, other_lse)
        safe = total.masked_fill(torch.isneginf(total), 0)
        out = out * torch.exp(lse - safe)[..., None] + other.float() * torch.exp(other_lse - safe)[..., None]
        lse = total
    return out.to(dtype), lse


def attention_rows(
    q: torch.Tensor, k: torch.Tensor, scale: float, *, bias: torch.Tensor | None = None, softcap: float | None = None
) -> torch.Tensor:
    """q [B, H, w, D] (the last w queries), k [B, Hkv, n, D] -> fp32 softmax rows [B, Hkv, G, w, n], causal inside the
    last w keys.

    What methods with an observation window rank entries by, normalised over all n columns. `bias` as in `attend`.
    """
    b, h, w, d = q.shape
    hkv, n = k.shape[1], k.shape[2]
    rows = (q * scale).reshape(b, hkv, h // hkv * w, d)
    logits = torch.matmul(rows, k.transpose(-1, -2)).float().view(b, hkv, h // hkv, w, n)
    if softcap is not None:
        logits = softcap * torch.tanh(logits / softcap)
    if bias is not None:
        logits = logits + bias.expand(b, hkv, n)[:, :, None, None, :]
    if w > 1:
        future = torch.ones(w, w, dtype=torch.bool, device=q.device).triu(1)
        logits[..., n - w :].masked_fill_(future, float("-inf"))
    return F.softmax(logits, dim=-1)


def attention_mass(
    q: torch.Tensor,
    k: torch.Tensor,
    scale: float,
    *,
    bias: torch.Tensor | None = None,
    softcap: float | None = None,
    real: torch.Tensor | None = None,
) -> torch.Tensor:
    """q [B, H, T, D] (the last T positions), k [B, Hkv, n, D] -> column sums of the causal attention, fp32 [B, Hkv, n].

    Mean over the query heads of each KV head; computed in blocks of query rows, without a T x n matrix. Queries that are
    False in `real` [B, T] contribute nothing.
    """
    t, n = q.shape[2], k.shape[2]
    size = max(16, min(_BLOCK, _SCORES // (q.shape[0] * q.shape[1] * n)))
    mass = torch.zeros(*k.shape[:3], dtype=torch.float32, device=q.device)
    for start in range(0, t, size):
        block = q[:, :, start : start + size]
        stop = start + block.shape[2]
        seen = n - t + stop
        rows = attention_rows(block, k[:, :, :seen], scale, bias=None if bias is None else bias[..., :seen], softcap=softcap)
        if real is not None:
            rows = rows.masked_fill(~real[:, None, None, start:stop, None], 0.0)
        mass[..., :seen] += rows.sum((2, 3))
    return mass / (q.shape[1] // k.shape[1])
