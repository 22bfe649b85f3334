"""EAS's adapters; numbers are the lines of what they must show."""

import pytest
import torch
from helpers.eas_tools import HS, SKIP, D, H, adapters

from laconic import SessionError
from laconic.methods.weights.eas.network import Adapter, Adapters


def grouped(up, z):
    """Slow: two blocks, one after the other."""
    half, out = z.shape[-1] // 2, []
    for g in range(2):
        for o in range(up.weight.shape[1]):
            total = up.bias[g * up.weight.shape[1] + o].clone()
            for i in range(half):
                total = total + up.weight[g, o, i] * z[g * half + i]
            out.append(total)
    return torch.stack(out)


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("skipped", [False, True])
def test_the_adapter_equals_a_slow_reference(skipped, late):
    torch.manual_seed(0)
    made = Adapter(8, 4, skipped, scale=0.7, temperature=2.0, random=True).eval().requires_grad_(False)
    for parameter in made.parameters():
        parameter.add_(torch.randn_like(parameter))
    u = torch.randn(2, 5, 8)
    mask = torch.tensor([[1, 1, 1, 1, 1], [0, 0, 1, 1, 1]])
    made.begin((lambda x: mask[:, : x.shape[1]]) if late else mask)
    y = made(u)
    for b in range(2):
        real = [t for t in range(5) if mask[b, t]]
        mean = sum(u[b, t] for t in real) / len(real)
        w = ((made.router.weight @ mean + made.router.bias) / 2.0).softmax(0)
        message = sum(made.down.weight @ u[b, t] + made.down.bias for t in real) / len(real)
        for t in range(5):
            z = made.down.weight @ u[b, t] + made.down.bias
            if skipped:
                z = 0.5 * (message + made.own.weight @ u[b, t] + made.own.bias)
            expected = u[b, t] + 0.7 * (w[0] * grouped(made.up0, z) + w[1] * grouped(made.up1, z))
            torch.testing.assert_close(y[b, t], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("skipped", [False, True])
def test_2_one_map_equals_the_adapter(skipped):
    torch.manual_seed(0)
    made = Adapter(8, 4, skipped, scale=0.7, random=True).eval().requires_grad_(False)
    for parameter in made.parameters():
        parameter.add_(torch.randn_like(parameter))
    u = torch.randn(1, 5, 8)
    y = made(u)
    matrix, bias = made.linear()
    torch.testing.assert_close(u @ matrix.T + bias, y, rtol=1e-4, atol=1e-4)


def test_7_parameters_are_counted_by_the_formula(llama):
    made = adapters(llama)
    up = 2 * (H // 2 * D + D)
    kept = D * H + H + up + 2 * D + 2
    skipped = 2 * (D * HS + HS) + 2 * (HS // 2 * D + D) + 2 * D + 2
    assert sum(p.numel() for p in made.parameters()) == 2 * kept + 2 * skipped


def test_9_only_the_message_moves_information(llama):
    """A layer without attention, token 1 changed: the others change only through z_g (and w)."""
    made, n = adapters(llama), 8
    adapter = made.skipped["1"]
    torch.nn.init.zeros_(adapter.router.weight)  # w would change too
    u = torch.randn(1, n, D)
    other = u.clone()
    other[0, 1] += 1.0

    def moved():
        out = []
        for x in (u, other):
            adapter.begin(None)
            out.append(adapter(x))
        return (out[0] - out[1])[0].abs().amax(-1) > 1e-6

    assert bool(moved().all())
    torch.nn.init.zeros_(adapter.down.weight)
    assert moved().tolist() == [t == 1 for t in range(n)]


def test_both_kinds_are_pruned_to_those_that_are_needed(llama):
    both = Adapters.of(llama, width=H, skip_width=HS, both=True)
    assert (list(both.kept), list(both.skipped)) == (["0", "1", "2", "3"], ["1", "2", "3"])
    both.prune(SKIP)
    alone = Adapters.of(llama, SKIP, width=H, skip_width=HS)
    assert both.skip == SKIP and list(both.state_dict()) == list(alone.state_dict())


def test_reset_draws_new_ones_that_start_as_the_identity():
    torch.manual_seed(0)
    made = Adapter(8, 4, True).eval()
    before = {name: x.clone() for name, x in made.state_dict().items()}
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(1.0)
    u = torch.randn(1, 5, 8)
    assert not torch.equal(made(u), u)
    made.reset()
    made.begin()
    assert torch.equal(made(u), u)
    assert not torch.equal(made.down.weight, before["down.weight"])
    torch.manual_seed(0)
    again = Adapter(8, 4, True)
    assert all(torch.equal(x, before[name]) for name, x in again.state_dict().items())


def test_another_type_comes_back_as_it_came():
    made = Adapter(8, 4, random=True).eval()
    u = torch.randn(1, 5, 8, dtype=torch.bfloat16)
    y = made(u)
    assert y.dtype == torch.bfloat16 and torch.equal(y, made(u.float()).bfloat16())


def test_what_cannot_be_done(llama):
    with pytest.raises(ValueError, match="layer 0 cannot be skipped"):
        Adapters.of(llama, (0, 1))
    with pytest.raises(ValueError, match="multiples of 2"):
        Adapter(8, 3)
    made = Adapter(8, 4)
    with pytest.raises(SessionError, match="batch of one"):
        made.linear()
    made(torch.randn(2, 3, 8))
    with pytest.raises(SessionError, match="batch of one"):
        made.linear()
