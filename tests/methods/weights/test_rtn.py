"""Rounding to nearest, number by number."""

import torch

import laconic


def test_every_weight_is_the_nearest_number_of_its_grid(llama):
    before = llama.model.layers[3].self_attn.o_proj.weight.clone()
    with laconic.compress(llama, laconic.RTN(bits=4, group=16)):
        rounded = llama.model.layers[3].self_attn.o_proj.weight.clone()
    for row in range(0, 32, 5):
        for start in (0, 16):
            own = before[row, start : start + 16]
            step = float((own.abs().max() * 2 / 15).bfloat16())
            grid = torch.arange(-8, 8) * step
            nearest = grid[(own[:, None] - grid).abs().argmin(1)]
            torch.testing.assert_close(rounded[row, start : start + 16], nearest)


def test_more_bits_change_less(llama):
    before, errors = llama.model.layers[0].mlp.up_proj.weight.clone(), []
    for bits in (4, 8):
        with laconic.compress(llama, laconic.RTN(bits=bits, group=32)):
            errors.append(float((llama.model.layers[0].mlp.up_proj.weight - before).norm()))
    assert errors[1] < errors[0] / 10
