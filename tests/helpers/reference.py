"""Slow references that several test files share, and the made-up layer that scorers are shown."""

import math

import torch

from laconic.cache.observe import Observation
from laconic.step import Step


def slow_logits(q, k, scale, bias=None, softcap=None, past=None):
    """logits [B, H, T, n] in fp64, one number at a time; with `past` set, query i sees keys 0 .. past + i."""
    b, h, t, _ = q.shape
    hkv, n = k.shape[1], k.shape[2]
    logits = torch.full((b, h, t, n), -math.inf, dtype=torch.float64)
    for bi in range(b):
        for hi in range(h):
            kv = hi // (h // hkv)
            for i in range(t):
                for j in range(n):
                    if past is not None and j > past + i:
                        continue
                    x = float(q[bi, hi, i].double() @ k[bi, kv, j].double()) * scale
                    if softcap is not None:
                        x = softcap * math.tanh(x / softcap)
                    logits[bi, hi, i, j] = x + (0.0 if bias is None else float(bias[bi, kv, j]))
    return logits


def slow_attend(q, k, v, scale, bias=None, softcap=None, causal=False):
    logits = slow_logits(q, k, scale, bias, softcap, past=k.shape[2] - q.shape[2] if causal else None)
    lse = logits.logsumexp(-1)
    weights = torch.exp(logits - lse.masked_fill(lse.isneginf(), 0)[..., None])
    g = q.shape[1] // k.shape[1]
    return weights @ v.double().repeat_interleave(g, 1), lse


def rope(positions, d, base=10_000.0):
    """cos and sin of the half-split rotation, [1, m, D] each; the same call signature as `Observation.rotary`."""
    positions = positions if positions.ndim == 2 else positions[None]
    angles = positions[..., None].double() * base ** (-torch.arange(0, d, 2, dtype=torch.float64) / d)
    angles = torch.cat([angles, angles], -1)
    return angles.cos().float(), angles.sin().float()


def slow_rotate(x, position, base=10_000.0):
    """One vector [D] rotated to a position: channel i goes with channel i + D/2."""
    d = x.shape[-1]
    out = x.clone()
    for i in range(d // 2):
        angle = position * base ** (-2 * i / d)
        a, b = float(x[i]), float(x[i + d // 2])
        out[i] = a * math.cos(angle) - b * math.sin(angle)
        out[i + d // 2] = b * math.cos(angle) + a * math.sin(angle)
    return out


def observe(
    *,
    b=2,
    h=4,
    hkv=2,
    n=17,
    t=None,
    d=8,
    seed=0,
    targets=None,
    valid=None,
    protected=None,
    columns=None,
    layer=0,
    layers=4,
    scale=None,
) -> Observation:
    """A layer of random queries, keys and values; t < n new entries follow n - t older ones. `valid` is [B, n]."""
    t = n if t is None else t
    generator = torch.Generator().manual_seed(seed)
    queries = torch.randn(b, h, t, d, generator=generator) * 1.5
    keys = torch.randn(b, hkv, n, d, generator=generator)
    values = torch.randn(b, hkv, n, d, generator=generator)
    real = [n] * b if valid is None else valid.sum(-1).tolist()
    positions = torch.arange(n - t, n)[None] if valid is None else (valid.cumsum(-1) - 1).clamp(min=0)[:, n - t :]
    step = Step(n - t, t, positions, real, valid=None if valid is None else valid[:, n - t :])
    return Observation(
        layer=layer,
        layers=layers,
        decoder_layer=layer,
        depth=layers,
        queries=queries,
        keys=keys,
        values=values,
        index=torch.arange(n, dtype=torch.int32).expand(b, hkv, n),
        valid=None if valid is None else valid[:, None].expand(b, hkv, n),
        columns=columns or {},
        protected=protected,
        real=real,
        targets=targets or [max(1, r // 2) for r in real],
        scale=d**-0.5 if scale is None else scale,
        softcap=None,
        step=step,
        rotary=lambda p: rope(p, d),
    )


def left_padding(n, *pads):
    """valid [B, n] with `pads[b]` False entries at the start of row b."""
    return torch.tensor([[j >= pad for j in range(n)] for pad in pads])


def chosen(selection, b, h):
    """Entry numbers that a selection keeps in head h of row b."""
    row = selection.index[b, h].tolist()
    return row if selection.lengths is None else row[: int(selection.lengths[b, h])]


def slow_top(scores, count):
    """Places of the `count` highest numbers of a list, ties to the earlier one, ascending."""
    return sorted(sorted(range(len(scores)), key=lambda j: (-scores[j], j))[:count])
