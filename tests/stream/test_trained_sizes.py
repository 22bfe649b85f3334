"""Sizes of a trained network within a budget."""

import pytest
from helpers.vision_tools import inputs

from laconic import BudgetError, compress
from laconic.stream.contract import TokenMethod
from laconic.stream.grids import views
from laconic.stream.trained_sizes import sized


class Probe(TokenMethod):
    """Notes which sizes would be chosen, and removes nothing."""

    name = "probe"
    made = {1: 1, 2: 4, 6: 36}

    def cut(self, stream):
        found = views(stream, 0)
        self.chosen = sized(self, stream, 0, [144] * len(found), [self.made] * len(found))


@pytest.mark.parametrize(
    ("budget", "images", "chosen"), [({"keep": 0.25}, 1, [6]), ({"tokens": 9}, 2, [2, 2]), ({"tokens": 7}, 2, [2, 1])]
)
def test_the_most_tokens_within_the_share(vlm, budget, images, chosen):
    probe = Probe(**budget)
    with compress(vlm, probe):
        vlm(**inputs([(3, 9)], images=images))
    assert probe.chosen == chosen


def test_a_share_below_the_smallest_size_is_refused(vlm):
    probe = Probe(tokens=3)
    probe.made = {2: 4, 6: 36}
    with compress(vlm, probe), pytest.raises(BudgetError, match=r"leaves 3 tokens to a view, .* makes 4 of it"):
        vlm(**inputs([(3, 9)]))
