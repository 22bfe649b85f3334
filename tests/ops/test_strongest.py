"""The strongest attention against a whole attention map."""

import math

import pytest
import torch

from laconic.ops.strongest import strongest


@pytest.mark.parametrize(("h", "hkv"), [(4, 4), (6, 2), (3, 1)])
@pytest.mark.parametrize(("p", "n"), [(1, 1), (7, 13), (130, 40)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_equals_the_maximum_of_the_map(h, hkv, p, n, dtype, monkeypatch):
    """Keys that are not scored (the replay's own) take part in the softmax through the log-sum-exp alone."""
    monkeypatch.setattr("laconic.ops.strongest._CELLS", 64)  # several blocks
    torch.manual_seed(0)
    q, k, own = torch.randn(2, h, p, 8).to(dtype), torch.randn(2, hkv, n, 8).to(dtype), torch.randn(2, hkv, 5, 8).to(dtype)
    scale = 0.7
    want = torch.zeros(2, hkv, n)
    lse = torch.empty(2, h, p)
    for b in range(2):
        for head in range(h):
            group = head // (h // hkv)
            keys = torch.cat([k[b, group], own[b, group]]).float()
            logits = q[b, head].float() @ keys.T * scale
            lse[b, head] = logits.logsumexp(-1)
            want[b, group] = torch.maximum(want[b, group], logits.softmax(-1)[:, :n].amax(0))
    torch.testing.assert_close(strongest(q, k, lse, scale), want, rtol=1e-5, atol=1e-6)


def test_a_weight_per_query():
    torch.manual_seed(1)
    q, k = torch.randn(1, 2, 9, 4), torch.randn(1, 1, 6, 4)
    lse = (q @ k.transpose(-1, -2)).logsumexp(-1)
    weight = torch.rand(1, 2, 9)
    rows = (q @ k.transpose(-1, -2)).softmax(-1) * weight[..., None]
    torch.testing.assert_close(strongest(q, k, lse, 1.0, weight.log()), rows.amax((1, 2))[:, None])


def test_queries_without_a_say():
    torch.manual_seed(2)
    q, k = torch.randn(1, 1, 4, 4), torch.randn(1, 1, 3, 4)
    lse = (q @ k.transpose(-1, -2)).logsumexp(-1)
    blind = lse.clone()
    blind[0, 0, :2] = math.inf  # left padding
    torch.testing.assert_close(strongest(q, k, blind, 1.0), strongest(q[:, :, 2:], k, lse[:, :, 2:], 1.0))
    blind[0, 0, :2] = -math.inf
    torch.testing.assert_close(strongest(q, k, blind, 1.0), strongest(q[:, :, 2:], k, lse[:, :, 2:], 1.0))
    assert strongest(q[:, :, :0], k, lse[:, :, :0], 1.0).tolist() == [[[0.0, 0.0, 0.0]]]
    assert strongest(q, k[:, :, :0], lse, 1.0).shape == (1, 1, 0)


def test_a_cap_on_the_logits():
    torch.manual_seed(3)
    q, k = 3 * torch.randn(1, 4, 5, 4), torch.randn(1, 2, 7, 4)
    logits = 2.0 * torch.tanh((q.view(1, 2, 2, 5, 4) @ k[:, :, None].transpose(-1, -2)) / 2.0)
    lse = logits.logsumexp(-1).view(1, 4, 5) + 0.3  # other keys were seen, too
    want = (logits - lse.view(1, 2, 2, 5, 1)).exp().amax((2, 3))
    torch.testing.assert_close(strongest(q, k, lse, 1.0, softcap=2.0), want)
