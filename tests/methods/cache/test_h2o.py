"""H2O: accumulated attention over prompt, chunks and decoding steps against the full matrix; half the budget is recent."""

import pytest
import torch
from helpers.reference import chosen, left_padding, observe, slow_logits, slow_top

import laconic
from laconic import H2O


def slow_mass(obs, valid=None):
    """Column sums of the full causal attention, mean over the group, one matrix entry at a time."""
    b, h, t, _ = obs.queries.shape
    hkv, n = obs.keys.shape[1:3]
    rows = slow_logits(obs.queries, obs.keys, obs.scale, obs.bias, None, past=n - t).softmax(-1)
    mass = [[[0.0] * n for _ in range(hkv)] for _ in range(b)]
    for bi in range(b):
        for hi in range(h):
            for i in range(t):
                if valid is not None and not valid[bi, n - t + i]:
                    continue
                for j in range(n - t + i + 1):
                    mass[bi][hi // (h // hkv)][j] += float(rows[bi, hi, i, j]) / (h // hkv)
    return mass


@pytest.mark.parametrize("normalise", [False, True])
@pytest.mark.parametrize("pads", [None, (6, 0)])
def test_choice_equals_the_loop(normalise, pads):
    valid = None if pads is None else left_padding(23, *pads)
    obs = observe(n=23, valid=valid, targets=[8, 9])
    mass = slow_mass(obs, valid)
    method = H2O(normalise=normalise)
    selection = method.select(obs)
    for b in range(2):
        recent = obs.targets[b] // 2
        for h in range(2):
            score = [m / (23 - j) if normalise else m for j, m in enumerate(mass[b][h])]
            first = 0 if pads is None else pads[b]
            torch.testing.assert_close(method.score(obs)[b, h][first:], torch.tensor(score)[first:], atol=1e-5, rtol=1e-5)
            ranked = [float("-inf") if j < first else x for j, x in enumerate(score)]
            want = slow_top(ranked[: 23 - recent], obs.targets[b] - recent) + list(range(23 - recent, 23))
            assert chosen(selection, b, h) == want


@pytest.mark.parametrize("chunk", [None, 10])
@pytest.mark.parametrize("budget", [{"keep": 0.4}, {"tokens": 12}, {"tokens": 28}])
def test_running_sums_over_chunks_and_steps_equal_a_simulation_on_full_matrices(llama, prompt, passes, chunk, budget):
    n, steps = 25, 9
    method = H2O(**budget)
    with laconic.compress(llama, method) as session:
        cache = None
        for piece in prompt(2, n).split(chunk or n, 1):
            llama(piece, past_key_values=cache)
            cache = session.cache
        for step in range(steps):
            llama(prompt(2, 1, seed=step), past_key_values=cache)
        kept = [[[session.kept(i, h, b).tolist() for h in range(2)] for b in range(2)] for i in range(4)]
        held = [layer.parts[0].columns for layer in session.cache.compressed()]
    for layer in range(4):
        for b in range(2):
            for kv in range(2):
                keys: list[torch.Tensor] = []
                mass: dict[int, float] = {}
                for q, k in passes[layer]:
                    t = k.shape[2]
                    for i in range(t):
                        keys.append(k[b, kv, i])
                        mass[len(keys) - 1] = 0.0
                    for i in range(t):  # every new query sees what is kept and not in its future
                        visible = [token for token in mass if token <= len(keys) - t + i]
                        for h in (2 * kv, 2 * kv + 1):
                            logits = torch.tensor([float(q[b, h, i] @ keys[token]) * 8**-0.5 for token in visible])
                            for token, a in zip(visible, logits.softmax(-1).tolist(), strict=True):
                                mass[token] += a / 2
                    target = method.budget.entries(len(keys), 1)
                    while len(mass) > target:
                        old = [token for token in mass if token < len(keys) - target // 2]
                        del mass[min(old, key=lambda token: mass[token])]
                assert kept[layer][b][kv] == sorted(mass)
                columns, stored = held[layer], range(len(mass))
                tokens = columns["index"][b, kv].tolist() if "index" in columns else stored
                sums = dict(zip(tokens, columns["mass"][b, kv].tolist(), strict=True))
                assert sums == pytest.approx(mass, rel=1e-3, abs=1e-4)


def test_half_of_the_budget_is_recent(llama, prompt):
    with laconic.compress(llama, H2O(keep=0.4)) as session:
        llama(prompt(2, 50))
    for layer in range(4):
        assert session.kept(layer, 1, 1)[-10:].tolist() == list(range(40, 50)) and len(session.kept(layer)) == 20
