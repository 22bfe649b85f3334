"""MiniCache written straight from its equations, and the layers and passes that its tests compare it on."""

import math

import torch

import laconic

GREEDY = {
    "max_new_tokens": 12,
    "do_sample": False,
    "return_dict_in_generate": True,
    "output_logits": True,
    "pad_token_id": 0,
}


def slow_merge(first, second, t):
    """Two layers' vectors [h][n] (tensors [D], fp64) -> directions [h][n], norms [h][n] twice, distance [n]."""
    heads, n = len(first), len(first[0])
    directions, norms, distance = [], ([], []), [0.0] * n
    for h in range(heads):
        rows, r0s, r1s = [], [], []
        for j in range(n):
            r0, r1 = float(first[h][j].norm()), float(second[h][j].norm())
            v, u = first[h][j] / r0, second[h][j] / r1
            w = math.acos(max(-1.0, min(1.0, float(u @ v))))
            if math.sin(w) < 1e-6:
                e = (1 - t) * v + t * u
                e = e / e.norm()
            else:
                e = math.sin((1 - t) * w) / math.sin(w) * v + math.sin(t * w) / math.sin(w) * u
            distance[j] += w / math.pi / heads
            rows.append(e), r0s.append(r0), r1s.append(r1)
        directions.append(rows), norms[0].append(r0s), norms[1].append(r1s)
    return directions, norms, distance


def slow_retained(distance, gamma, real=None):
    own = [d for j, d in enumerate(distance) if real is None or real[j]]
    threshold = max(own) - gamma * (max(own) - min(own))
    return [j for j, d in enumerate(distance) if (real is None or real[j]) and d > threshold], threshold


def merge(method, first, second, real=None):
    """`MiniCache.merge` on a fresh pair, and the limits that it learned."""
    real = torch.ones(first.shape[0], first.shape[2], dtype=torch.bool) if real is None else real
    limits = torch.tensor([2.0, -1.0, -1.0]).repeat(first.shape[0], 1)
    return method.merge(first, second, real, limits, True), limits


def restored(merged, i):
    x = merged.directions * merged.norms[i][..., None]
    index = merged.places[:, None, :, None].expand_as(merged.exact[i])
    return x.scatter(2, index, merged.exact[i])


def vectors(b=1, h=2, n=30, d=8, seed=0, outliers=()):
    """Two layers whose vectors point in similar directions and differ in length; outliers point the other way."""
    g = torch.Generator().manual_seed(seed)
    common = torch.randn(b, h, n, d, generator=g)
    common = common / common.norm(dim=-1, keepdim=True)
    pair = []
    for length in (1.0, 1.7):
        x = common + 0.15 * torch.randn(b, h, n, d, generator=g)
        pair.append(length * (0.5 + torch.rand(b, h, n, 1, generator=g)) * x)
    for j in outliers:
        pair[0][:, :, j] = -0.6 * pair[1][:, :, j]
    return pair


def steps(model, ids, method, more):
    """Logits of the prompt, then of every further token [B, m] fed alone; and the session."""
    with laconic.compress(model, method) as session:
        out = [model(ids).logits]
        for i in range(more.shape[1]):
            out.append(model(more[:, i : i + 1], past_key_values=session.cache).logits)
    return out, session
