"""GPTQ against its definition, and against rounding to nearest."""

import pytest
import torch
from helpers.weight_tools import calibrated

import laconic
from laconic.weights.quantiser import codes_of, steps_of
from laconic.weights.restored import restored


def correlated(n, rows=400, seed=0):
    drawn = torch.Generator().manual_seed(seed)
    return torch.randn(n, n // 4, generator=drawn) @ torch.randn(n // 4, rows, generator=drawn) + 0.5 * torch.randn(
        n, rows, generator=drawn
    )


def restored_from(codes, steps):
    return (codes.unflatten(-1, (steps.shape[-1], -1)) * steps[..., None]).flatten(-2)


def slow(weight, gram, bits, group):
    """The inverse of what is left for every column, in float64; a group's step when its first column comes."""
    now, gram = weight.double(), gram.double()
    gram = gram + 0.01 * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype)
    for j in range(weight.shape[1]):
        if j % group == 0:
            step = steps_of(now[:, j : j + group].float(), bits).double()
        q = (now[:, j] / step).round().clamp(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) * step
        inverse = torch.linalg.inv(gram[j:, j:])
        now[:, j:] -= ((now[:, j] - q) / inverse[0, 0])[:, None] * inverse[0]
        now[:, j] = q
    return now.float()


@pytest.mark.parametrize(("n", "group"), [(32, 8), (160, 32), (320, 160)])
def test_it_is_the_definition(n, group):
    """Rounding decides between neighbours: where both are nearly as near, another order of sums may choose the other."""
    torch.manual_seed(0)
    weight, x = torch.randn(4, n), correlated(n)
    got = restored_from(*laconic.GPTQ(group=group).rounded(weight, x @ x.T))
    want = slow(weight, x @ x.T, 4, group)
    assert ((got - want).abs() < 1e-4).float().mean() > 0.98
    assert ((got - want) @ x).norm() < 0.1 * ((want - weight) @ x).norm() or torch.allclose(got, want, atol=1e-4)


def test_independent_inputs_are_rounded_to_nearest():
    torch.manual_seed(0)
    weight, gram = torch.randn(6, 64), torch.diag(torch.rand(64) + 0.1)
    codes, steps = laconic.GPTQ(group=16).rounded(weight, gram)
    groups = weight.unflatten(-1, (-1, 16))
    assert torch.equal(steps, steps_of(groups, 4))
    assert torch.equal(codes, codes_of(groups, steps[..., None], 4).flatten(-2))


def test_outputs_change_less_than_by_rounding_to_nearest():
    torch.manual_seed(0)
    weight, x = torch.randn(16, 64), correlated(64)
    got = restored_from(*laconic.GPTQ(group=32).rounded(weight, x @ x.T))
    steps = steps_of(weight.unflatten(-1, (-1, 32)), 4)
    nearest = restored_from(codes_of(weight.unflatten(-1, (-1, 32)), steps[..., None], 4).flatten(-2), steps)
    assert ((got - weight) @ x).norm() < 0.7 * ((nearest - weight) @ x).norm()


def test_the_model_gets_what_is_packed(llama):
    method = calibrated("gptq:group=16", llama)
    method.prepare(llama)
    with restored(llama):
        method.edit(llama)
        for name, packed in method.packed.items():
            assert torch.equal(llama.get_submodule(name).weight, packed.weights())
    assert len(method.packed) == 28
