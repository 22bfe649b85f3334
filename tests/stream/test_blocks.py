"""Rows of each image."""

import torch
from helpers.vision_tools import inputs

from laconic import compress
from laconic.stream.blocks import at_depth, blocks
from laconic.stream.contract import TokenMethod


class Look(TokenMethod):
    name = "look"

    def cut(self, stream):
        self.found = [[rows.tolist() for rows in blocks(stream, b)] for b in range(len(stream.hidden))]


def test_every_image_is_a_block(vlm):
    look = Look(keep=0.5)
    given = inputs([(2, 3), (4, 1)], images=2)
    with compress(vlm, look):
        vlm(**given)
    assert look.found == [[list(range(s, s + 144)) for s in (2, 146)], [list(range(s, s + 144)) for s in (4, 148)]]


def test_layer_numbers_scale_with_depth():
    assert [at_depth(2, d) for d in (8, 16, 32, 40)] == [1, 1, 2, 3]
    assert at_depth(0, 40) == 0 and [at_depth(k, 8) for k in (8, 14, 19)] == [2, 4, 5]


def test_an_image_without_tokens_is_left_out(vlm):
    class Second(Look):
        name = "second"

        def cuts(self, depth):
            return (2,)

    from laconic.stream.assemble import assemble

    class First(TokenMethod):
        name = "first"

        def cut(self, stream):
            return assemble(stream, [torch.arange(3, 147)])

    look = Second(keep=0.5)
    look.claims = First.claims = frozenset()
    given = inputs([(3, 5)], images=2)
    with compress(vlm, First(keep=0.5), look):
        vlm(**given)
    assert look.found == [[list(range(3, 147))]]
