"""A trainable copy of the projector."""

import pytest
import torch
from helpers.vision_zoo import CASES

from laconic import UnsupportedModelError
from laconic.stream.readout import readout


def test_it_begins_as_the_projector_and_is_its_own(vlm):
    copy, x = readout(vlm), torch.randn(4, 192)
    torch.testing.assert_close(copy(x), vlm.model.multi_modal_projector(x), rtol=1e-4, atol=1e-4)
    before = vlm.model.multi_modal_projector.linear_1.weight.clone()
    with torch.no_grad():
        copy[0].weight.mul_(2)
    assert torch.equal(vlm.model.multi_modal_projector.linear_1.weight, before) and copy[0].weight.requires_grad


@pytest.mark.parametrize("name", ["internvl", "qwen2_vl"])
def test_other_projectors_are_refused(name):
    with pytest.raises(UnsupportedModelError, match="two linear layers with a GELU between them"):
        readout(CASES[name].build())
