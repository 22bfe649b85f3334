"""TOVA: the last query decides for all heads; one token is evicted at every decoding step, against a slow simulation."""

import pytest
import torch
from helpers.reference import chosen, observe, slow_logits, slow_top

import laconic
from laconic import TOVA


def slow_tova(obs):
    """Attention of the last query, mean over all H heads: one number per token and batch row."""
    b, h, _, _ = obs.queries.shape
    n = obs.keys.shape[2]
    rows = slow_logits(obs.queries[:, :, -1:], obs.keys, obs.scale, None, None, past=n - 1).softmax(-1)
    return [[sum(float(rows[bi, hi, 0, j]) for hi in range(h)) / h for j in range(n)] for bi in range(b)]


@pytest.mark.parametrize("heads", [(4, 2), (6, 2), (2, 2)])
def test_one_list_for_all_heads_equals_the_loop(heads):
    seen = observe(h=heads[0], hkv=heads[1], n=23, targets=[9, 9])
    want = slow_tova(seen)
    selection = TOVA().select(seen)
    for b in range(2):
        for h in range(heads[1]):
            torch.testing.assert_close(TOVA().score(seen)[b, h], torch.tensor(want[b]), atol=1e-6, rtol=1e-5)
            ranked = [*want[b][:-1], float("inf")]  # the last token is forced
            assert chosen(selection, b, h) == slow_top(ranked, 9)


@pytest.mark.parametrize("budget", [{"keep": 0.4}, {"tokens": 12}, {"tokens": 26}])
def test_decoding_evicts_the_least_attended_token(llama, prompt, passes, budget):
    n, steps = 24, 11
    kept = {}
    method = TOVA(**budget)
    with laconic.compress(llama, method) as session:
        llama(prompt(2, n))
        for step in range(steps):
            llama(prompt(2, 1, seed=step), past_key_values=session.cache)
        for layer in range(4):
            kept[layer] = [[session.kept(layer, h, b).tolist() for h in range(2)] for b in range(2)]
    for layer in range(4):
        for b in range(2):
            keys = {}  # token -> key [Hkv, D]
            alive: list[int] = []
            for q, k in passes[layer]:
                new = [len(keys) + i for i in range(k.shape[2])]
                for i, token in enumerate(new):
                    keys[token] = k[b, :, i]
                alive += new
                target = method.budget.entries(len(keys), 1)
                attention = torch.zeros(len(alive))
                for h in range(4):
                    logits = [float(q[b, h, -1] @ keys[token][h // 2]) * 8**-0.5 for token in alive]
                    attention += torch.tensor(logits).softmax(-1) / 4
                score = dict(zip(alive, attention.tolist(), strict=True))
                while len(alive) > target:
                    alive.remove(min(alive[:-1], key=lambda token: score[token]))
            assert kept[layer][b] == [alive, alive]
