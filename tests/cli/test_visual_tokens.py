"""Which tokens show patches, and how many of them each layer ran."""

import pytest
import torch
from helpers.vision_zoo import CASES, IMAGE

from laconic.cli.visual_tokens import VisualTokens
from laconic.methods.tokens.random_visual import RandomVisual
from laconic.session import compress


@pytest.fixture(scope="module")
def shown():
    case = CASES["llava"]
    return case.build(), case.inputs([[case.image(0)]])


@pytest.mark.parametrize("keep", [1.0, 0.5])
def test_counts_are_those_of_the_session(shown, keep):
    model, given = shown
    with VisualTokens(model) as visual, compress(model, RandomVisual(keep=keep)) as session, torch.no_grad():
        model(**given)
    places = (given["input_ids"][0] == IMAGE).nonzero()[:, 0].tolist()
    assert visual.numbers == set(places) and len(places) > 3
    by_layer = visual.by_layer(session)
    assert list(by_layer) == session.stats.layers
    assert all(count == pytest.approx(keep * len(places), abs=0.5) for count in by_layer.values())


def test_without_a_token_method_all_of_them_run(shown):
    model, given = shown
    with VisualTokens(model) as visual, compress(model) as session, torch.no_grad():
        model(**given)
    assert set(visual.by_layer(session).values()) == {len(visual.numbers)}
    assert not any(m._forward_pre_hooks for m in model.modules())
