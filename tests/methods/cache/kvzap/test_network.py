"""The two ways of fitting KVzap's surrogate."""

import pytest
import torch

from laconic.methods.cache.kvzap.network import Descent, Ridge, Surrogate


def drawn(layers=3, n=200, size=12, heads=2):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(layers, n, size, generator=generator) + 2
    weight = torch.randn(layers, size, heads, generator=generator)
    y = x @ weight - 7 + 0.1 * torch.randn(layers, n, heads, generator=generator)
    return x, y


@pytest.mark.parametrize("pull", [1e-6, 1.0, 50.0])
def test_ridge_is_the_closed_form_with_a_free_bias(pull):
    """In pieces, against the normal equations of [x, 1] with nothing pulling at the bias."""
    x, y = drawn()
    learner = Ridge(3, 12, 2, pull)
    for layer in range(3):
        for piece in (slice(0, 70), slice(70, 200)):
            learner.add(layer, x[layer, piece], y[layer, piece])
    found = learner.fitted()
    for layer in range(3):
        ones = torch.cat([x[layer].double(), torch.ones(200, 1, dtype=torch.float64)], 1)
        penalty = pull * torch.eye(13, dtype=torch.float64)
        penalty[-1, -1] = 0
        want = torch.linalg.solve(ones.T @ ones + penalty, ones.T @ y[layer].double())
        torch.testing.assert_close(found.leave[layer], want[:-1].float(), rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(found.leave_bias[layer, 0], want[-1].float(), rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(found(x[layer], layer), found(x)[layer])


def test_descent_learns_what_no_line_does():
    x = torch.randn(2, 400, 6, generator=torch.Generator().manual_seed(2))
    y = torch.stack([x[..., 0].abs(), -x[..., 1].abs()], -1)

    def explained(learner):
        for layer in range(2):
            learner.add(layer, x[layer, :300], y[layer, :300])
        error = (learner.fitted()(x[:, 300:]) - y[:, 300:]).square().mean(1)
        return float((1 - error / y[:, 300:].var(1)).mean())

    torch.manual_seed(0)
    assert explained(Descent(2, 6, 2, 16, epochs=60, batch=50, lr=1e-2)) > 0.8 > 0.2 > explained(Ridge(2, 6, 2, 1.0))


def test_layers_do_not_share_weights():
    torch.manual_seed(0)
    for width in (0, 4):
        network = Surrogate(3, 6, 2, width)
        x = torch.randn(5, 6)
        outs = [network(x, layer) for layer in range(3)]
        assert outs[0].shape == (5, 2) and not torch.allclose(outs[0], outs[1])
