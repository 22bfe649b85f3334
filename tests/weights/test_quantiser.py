"""The grid of weight quantisers, and what they refuse."""

import pytest
import torch

import laconic
from laconic import BudgetError, UnsupportedModelError
from laconic.weights.quantiser import codes_of, steps_of


@pytest.mark.parametrize("bits", [4, 8])
def test_errors_stay_within_half_a_step_and_rounding_twice_is_rounding_once(bits):
    torch.manual_seed(0)
    weight = torch.randn(5, 3, 16)
    weight[2, 1] = 0
    steps = steps_of(weight, bits)[..., None]
    codes = codes_of(weight, steps, bits)
    assert codes.min() >= -(2 ** (bits - 1)) and codes.max() <= 2 ** (bits - 1) - 1
    assert ((codes * steps - weight).abs() <= steps * (0.5 + 2 ** (bits - 9))).all()  # the step is rounded to bfloat16
    assert torch.equal(codes_of(codes * steps, steps, bits), codes)
    assert torch.equal(codes[2, 1], torch.zeros(16))


def test_groups_have_steps_of_their_own(llama):
    method = laconic.RTN(bits=4, group=8)
    weight = llama.model.layers[0].mlp.down_proj.weight
    with laconic.compress(llama, method):
        rounded = llama.model.layers[0].mlp.down_proj.weight
        for row in (0, 7):
            for start in range(0, 64, 8):
                own = weight[row, start : start + 8]
                step = float((own.abs().max() * 2 / 15).bfloat16())
                want = [max(-8, min(7, round(float(w) / step))) * step for w in own]
                torch.testing.assert_close(rounded[row, start : start + 8], torch.tensor(want))


def test_bytes_are_counted(llama):
    method = laconic.RTN(bits=4, group=16)
    method.prepare(llama)
    with laconic.weights.restored.restored(llama):
        facts = method.edit(llama)
    assert facts["bits per weight"] == 4 + 16 / 16
    assert facts["bytes of linear maps"] == facts["weights of linear maps"] * 5 / 8


def test_bad_settings(llama):
    with pytest.raises(ValueError, match="choose 4 or 8"):
        laconic.RTN(bits=3)
    with pytest.raises(BudgetError, match="all weights stay"):
        laconic.GPTQ(keep=0.5)
    with pytest.raises(UnsupportedModelError, match="group=24 does not divide the 32 inputs"):
        laconic.compress(llama, laconic.RTN(group=24))
