"""Segments of a context, one network for all."""

import pytest
import torch
from torch import Tensor

from laconic.memory.compressor import Compressor, decoder_flops, slots_of


class Sums(Compressor):
    """Every slot is the segment's sum of ids; it notes the shapes that it was called with."""

    def __init__(self, segment, closing=False):
        super().__init__(segment)
        self.calls, self.ends = [], closing

    def forward(self, model, ids, slots):
        self.calls.append((*ids.shape, slots))
        return ids.sum(1).float()[:, None, None].expand(-1, slots, 3)

    def flops(self, shape, tokens, slots):
        return 1000 * tokens + slots

    def closing(self) -> Tensor | None:
        return torch.full((1, 3), -1.0) if self.ends else None


@pytest.mark.parametrize(
    ("tokens", "keep", "slots"), [(20, 0.5, 10), (7, 0.5, 4), (1, 0.25, 1), (3, 0.1, 1), (10, 0.3, 3), (30, 0.1, 3)]
)
def test_slots_are_rounded_up(tokens, keep, slots):
    assert slots_of(tokens, keep) == slots


def test_segments_keep_their_order_and_the_last_may_be_short():
    network, ids = Sums(4), torch.arange(22).reshape(2, 11)
    soft = network.contexts(None, ids, 0.5)
    assert network.calls == [(4, 4, 2), (2, 3, 2)]
    sums = [[6, 6, 22, 22, 27, 27], [50, 50, 66, 66, 60, 60]]
    assert soft.shape == (2, 6, 3) and soft[..., 0].tolist() == sums
    assert network.context_flops(None, 11, 0.5) == 11_000 + 6


def test_what_closes_a_memory_comes_once_after_all_segments():
    soft = Sums(4, closing=True).contexts(None, torch.ones(2, 8, dtype=torch.long), 0.25)
    assert soft[..., 1].tolist() == [[4, 4, -1], [4, 4, -1]]


def test_a_long_document_goes_through_in_pieces():
    network = Sums(2)
    soft = network.contexts(None, torch.arange(400)[None], 0.5)
    assert max(call[0] for call in network.calls) == 64 and len(network.calls) == 4
    assert soft[0, :, 0].tolist() == [4 * i + 1 for i in range(200)]


def test_flops_of_some_layers(llama):
    from laconic.measure.cost import Shape

    shape = Shape.of(llama, llama.model)
    assert decoder_flops(shape, 9) == shape.prefill_flops([9] * 4, logits=0) == 4 * decoder_flops(shape, 9, 1)


def test_the_gain_scales_what_the_network_gives_and_not_what_closes_it():
    network = Sums(4, closing=True)
    network.gain.data.fill_(3.0)
    soft = network.contexts(None, torch.ones(1, 6, dtype=torch.long), 0.25)
    assert soft[0, :, 0].tolist() == [12, 6, -1]
