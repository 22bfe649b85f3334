"""Pooling and the window score as loops."""

import torch

from helpers.reference import slow_logits


def slow_pool(row: list[float], kernel: int, pooling: str) -> list[float]:
    """Stride 1; average counts the zeros outside, maximum does not see them."""
    half, out = kernel // 2, []
    for i in range(len(row)):
        near = row[max(0, i - half) : i + half + 1]
        out.append(sum(near) / kernel if pooling == "avg" else max(near))
    return out


def slow_window_scores(obs, window, kernel, pooling):
    """Mean over the window's queries, pooled per query head (context and window apart), mean over the group."""
    b, h, t, _ = obs.queries.shape
    hkv, n = obs.keys.shape[1:3]
    w = min(window, t)
    rows = slow_logits(obs.queries, obs.keys, obs.scale, obs.bias, None, past=n - t).softmax(-1)[:, :, -w:]
    out = torch.zeros(b, hkv, n)
    for bi in range(b):
        for hi in range(h):
            mean = [sum(float(rows[bi, hi, i, j]) for i in range(w)) / w for j in range(n)]
            pooled = slow_pool(mean[: n - w], kernel, pooling) + slow_pool(mean[n - w :], kernel, pooling)
            out[bi, hi // (h // hkv)] += torch.tensor(pooled) / (h // hkv)
    return out
