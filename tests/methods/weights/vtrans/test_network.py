"""Gates: information, noise, what is expected to stay."""

import math

import torch

from laconic.methods.weights.vtrans.network import Gates, Sizes
from laconic.methods.weights.vtrans.placed import drawn

SIZES = Sizes(layers=3, width=8, heads=2, queries=2, head_dim=4, neurons=16)


def test_information_rises_with_the_signal_and_falls_with_noise():
    gates = Gates(SIZES)

    def kl(mu, logvar):
        with torch.no_grad():
            gates.mu["width"].fill_(mu)
            gates.logvar["width"].fill_(logvar)
            return float(gates.kl("width"))

    assert kl(0.0, -1.0) == 0
    assert kl(0.5, -1.0) < kl(1.0, -1.0) == kl(-1.0, -1.0) and kl(1.0, 0.0) < kl(1.0, -1.0)
    assert math.isclose(kl(1.0, -1.0), 8 * 0.5 * math.log(1 + 1 / (math.exp(-1) + 1e-8)), rel_tol=1e-5)


def test_information_has_the_gradient_of_differences():
    gates = Gates(SIZES).double()
    gates.kl("neurons").backward()
    for parameter in (gates.mu["neurons"], gates.logvar["neurons"]):
        with torch.no_grad():
            parameter[1, 3] += 1e-5
            high = gates.kl("neurons")
            parameter[1, 3] -= 2e-5
            low = gates.kl("neurons")
            parameter[1, 3] += 1e-5
        assert abs(float((high - low) / 2e-5 - parameter.grad[1, 3])) < 1e-5


def test_drawn_gates_have_the_mean_and_the_variance():
    torch.manual_seed(0)
    gates = Gates(SIZES, logvar=-2.0)
    x = torch.tensor([2.0] * 8).expand(20_000, 8)
    with torch.no_grad():
        y = drawn(gates)("width", None, x)
        torch.testing.assert_close(y.mean(0), 2 * gates.mu["width"], atol=0.03, rtol=0)
        torch.testing.assert_close(y.var(0), 4 * gates.logvar["width"].exp(), atol=0.03, rtol=0)
        by_head = drawn(gates)("heads", 1, torch.ones(5, 6, 8, 2))
    assert (by_head == by_head[:, :, :1]).all() and not (by_head[0, 0] == by_head[0, 1]).any()


def test_what_is_expected_and_what_is_left():
    gates = Gates(SIZES)
    with torch.no_grad():
        for name in gates.mu:
            gates.mu[name].fill_(1)
            gates.logvar[name].fill_(-30)
        assert gates.sparsity().item() < 1e-6 and gates.hard_sparsity() == 0
        gates.logvar["neurons"][0, :8] = 30
        gates.logvar["heads"][2, 0] = 30
        gates.logvar["width"][:2] = 30
    left = 0
    for neurons, heads in ((8, 2), (16, 2), (16, 1)):
        left += (4 + 2) * 4 * heads * 6 + 3 * neurons * 6 + 2 * 6  # q and o of 2 queries each, k and v; FFN; norms
    dense = 3 * (6 * 4 * 2 * 8 + 3 * 16 * 8 + 16)
    assert SIZES.dense == dense
    assert math.isclose(gates.hard_sparsity(), 1 - left / dense, abs_tol=1e-9)
    assert math.isclose(gates.sparsity().item(), 1 - left / dense, abs_tol=1e-5)
