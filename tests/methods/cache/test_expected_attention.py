"""ExpectedAttention: Gaussian future queries, rotated to the coming positions; against loops and sampling."""

import pytest
import torch
from helpers.reference import chosen, left_padding, observe, slow_rotate

import laconic
from laconic import ExpectedAttention


def slow_scores(obs, method, b, first=0):
    """Scores of one batch row, one number at a time; `first` real token of the row. Returns [Hkv][n] (nan at padding)."""
    h_all, d = obs.queries.shape[1], obs.queries.shape[3]
    hkv, n = obs.keys.shape[1:3]
    g = h_all // hkv
    out = [[0.0] * n for _ in range(hkv)]
    for h in range(h_all):
        # undo RoPE: a rotation by the negative angle
        plain = [slow_rotate(obs.queries[b, h, i], -(i - first)) for i in range(first, n)]
        plain = torch.stack(plain[method.sinks :]).double()
        mean = plain.mean(0)
        sigma = torch.zeros(d, d, dtype=torch.float64)
        for x in plain:
            sigma += torch.outer(x - mean, x - mean) / len(plain)
        rotation = torch.zeros(d, d, dtype=torch.float64)  # columns: the average rotation of unit vectors
        for step in range(method.future):
            for i in range(d):
                unit = torch.eye(d, dtype=torch.float64)[i]
                rotation[:, i] += slow_rotate(unit, n - first + step) / method.future
        mean, sigma = rotation @ mean, rotation @ sigma @ rotation.T
        logits = {}
        for j in range(first + method.sinks, n):
            k = obs.keys[b, h // g, j].double()
            logits[j] = float(mean @ k) / d**0.5
            if method.use_covariance:
                logits[j] += float(k @ sigma @ k) / (2 * d)
        softmax = torch.tensor(list(logits.values())).softmax(0).tolist()
        for j, s in zip(logits, softmax, strict=True):
            out[h // g][j] += s / g
    for kv in range(hkv):
        for j in range(n):
            norm = float(obs.values[b, kv, j].norm()) if method.use_values else 1.0
            out[kv][j] = (out[kv][j] + method.epsilon) * norm
    return out


@pytest.mark.parametrize(
    "parameters",
    [
        {"future": 5},
        {"future": 1, "sinks": 0},
        {"future": 3, "use_covariance": False},
        {"future": 3, "use_values": False, "sinks": 2},
        {"future": 3, "epsilon": 0.01},
    ],
)
def test_score_equals_the_loop(parameters):
    seen, method = observe(n=17), ExpectedAttention(**parameters)
    got = method.score(seen)
    for b in range(2):
        torch.testing.assert_close(got[b], torch.tensor(slow_scores(seen, method, b)), atol=1e-4, rtol=1e-3)


def test_padding_leaves_the_statistics_alone():
    seen = observe(n=17, valid=left_padding(17, 5, 0))
    method = ExpectedAttention(future=3)
    want = torch.tensor(slow_scores(seen, method, 0, first=5))
    torch.testing.assert_close(method.score(seen)[0, :, 5:], want[:, 5:], atol=1e-4, rtol=1e-3)


def test_sinks_stay():
    selection = ExpectedAttention().select(observe(n=41, targets=[10, 10]))
    for b in range(2):
        for h in range(2):
            assert chosen(selection, b, h)[:4] == [0, 1, 2, 3] and len(chosen(selection, b, h)) == 10


def test_without_spread_and_one_position_it_is_the_attention_of_the_mean_query():
    """Must show 6: Sigma = 0, F = 1 equals softmax attention of the mean query at position N."""
    obs = observe(n=17)
    method = ExpectedAttention(future=1, sinks=0, use_covariance=False, use_values=False)
    want = torch.zeros(2, 2, 17)
    for b in range(2):
        for h in range(4):
            mean = torch.stack([slow_rotate(obs.queries[b, h, i], -i) for i in range(17)]).mean(0)
            query = slow_rotate(mean, 17)
            want[b, h // 2] += torch.softmax(obs.keys[b, h // 2] @ query * 8**-0.5, 0) / 2
    torch.testing.assert_close(method.score(obs), want, atol=1e-5, rtol=1e-4)


def test_monte_carlo_of_gaussian_queries_agrees_within_two_percent():
    """Must show 6: E exp(q k / sqrt d) over Gaussian q is exp(mean + half variance); F = 1, so the rotation is exact."""
    obs = observe(b=1, h=1, hkv=1, n=33, d=8)
    obs.queries = obs.queries * 0.6
    method = ExpectedAttention(future=1, sinks=0, use_values=False)
    mean, covariance = method._statistics(obs)
    generator = torch.Generator().manual_seed(0)
    draws = torch.randn(400_000, 8, generator=generator, dtype=torch.float64)
    root = torch.linalg.cholesky(covariance[0, 0].double() + 1e-9 * torch.eye(8))
    queries = mean[0, 0].double() + draws @ root.T
    weights = torch.exp(queries @ obs.keys[0, 0].double().T * 8**-0.5).mean(0)
    torch.testing.assert_close(method.score(obs)[0, 0].double(), weights / weights.sum(), rtol=0.02, atol=0)


@pytest.mark.parametrize("keep", [0.5, 0.2])
def test_every_head_keeps_its_share(llama, prompt, keep):
    with laconic.compress(llama, ExpectedAttention(keep=keep)) as session:
        llama(prompt(2, 51))
    for layer in session.cache.compressed():
        assert layer.lengths.tolist() == [[int(51 * keep)] * 2] * 2


def test_a_decoding_position_is_the_one_after_the_prompt(llama, prompt):
    """The rotation starts at position N of the model, also after left padding."""
    ids, mask = prompt(2, 30), torch.ones(2, 30, dtype=torch.long)
    mask[0, :9] = 0
    kept = []
    with laconic.compress(llama, ExpectedAttention(keep=0.5, future=4)) as session:
        llama.generate(ids, attention_mask=mask, max_new_tokens=1, pad_token_id=0)
        kept.append([(session.kept(i, h, 0) - 9).tolist() for i in range(4) for h in range(2)])
    with laconic.compress(llama, ExpectedAttention(keep=0.5, future=4)) as session:
        llama.generate(ids[:1, 9:], max_new_tokens=1, pad_token_id=0)
        kept.append([session.kept(i, h).tolist() for i in range(4) for h in range(2)])
    assert kept[0] == kept[1]
