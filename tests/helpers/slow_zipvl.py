"""ZipVL's choice written straight from its equations."""

import math

from helpers.reference import slow_logits, slow_top

GREEDY = {"do_sample": False, "pad_token_id": 0, "return_dict_in_generate": True, "output_logits": True}


def slow_received(obs, places):
    """Places of probes by batch row -> a_j and nnz_j, [B][n] each; one probability at a time, mean over heads."""
    b, h, t, _ = obs.queries.shape
    n = obs.keys.shape[2]
    rows = slow_logits(obs.queries, obs.keys, obs.scale, obs.bias, None, past=n - t).softmax(-1)
    mass, probes = [], []
    for bi in range(b):
        a, nnz = [0.0] * n, [0] * n
        for c in places[bi]:
            for j in range(n):
                real = obs.valid is None or bool(obs.valid[bi, 0, j])
                if j <= n - t + c and real:
                    nnz[j] += 1
                    a[j] += sum(float(rows[bi, hi, c, j]) for hi in range(h)) / h
        mass.append(a), probes.append(nnz)
    return mass, probes


def slow_prefix(mass, tau):
    held, p = 0.0, 0
    for a in sorted(mass, reverse=True):
        held, p = held + a, p + 1
        if held >= tau * sum(mass) * (1 - 1e-6):
            break
    return p


def slow_important(mass, probes, tau, real=None):
    """The p best normalised scores, the last and the first token among them."""
    real = list(range(len(mass))) if real is None else real
    p = max(slow_prefix([mass[j] for j in real], tau), 2)
    score = [mass[j] / max(1, probes[j]) if j in real else -math.inf for j in range(len(mass))]
    score[real[0]], score[real[-1]] = 2.0, 3.0
    return slow_top(score, p)


def places_of(method, seen):
    places, real = method.probe_places(seen)
    return [row[own].tolist() for row, own in zip(places, real, strict=True)]
