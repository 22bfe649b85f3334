"""Tuning with ADSC's bottlenecks; "line n" refers to the list of what it must show."""

import pytest
import torch
from helpers.trained_toy import CELLS, batch, toy

from laconic import compress
from laconic.fit.losses import answer_loss
from laconic.methods.tokens.adsc import ADSC


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_gradients_reach_dropped_tokens(layer):
    """line 8: through the attention of the layers before the bottleneck, hence not where there are none"""
    model = toy().train()
    given, labels, _ = batch(0, 8)
    caught = []
    projector = model.model.multi_modal_projector
    handle = projector.register_forward_hook(lambda module, args, out: out.retain_grad() or caught.append(out))
    with compress(model, ADSC(layers=(layer,), factor=4)) as session:
        answer_loss(session, model(**given).logits, labels).backward()
    handle.remove()
    slopes = caught[0].grad.norm(dim=-1).view(8, CELLS)
    dropped = torch.arange(CELLS) % 4 != 3
    assert (slopes[:, ~dropped] > 0).all()
    assert (slopes[:, dropped] > 0).all() if layer else (slopes[:, dropped] == 0).all()


@pytest.mark.parametrize("factor", [2, 4])
def test_the_last_of_a_group_beats_the_first_where_tokens_carry_their_predecessors(factor):
    """line 6: planted, each visual token leaves layer 0 with what it shows and, in separate channels, what the token before
    it shows; a cell is found after the bottleneck if some token there still has its content in either place"""
    model = toy()
    given, _, _ = batch(0, 8)
    shows = torch.randn(8, CELLS, 24)

    def plant(module, args, out):
        before = torch.cat([torch.zeros(8, 1, 24), shows[:, :-1]], 1)
        out = out.clone()
        out[:, 1 : 1 + CELLS] = torch.cat([shows, before], -1)
        return out

    found = {}
    layers = model.model.language_model.layers
    handles = [layers[0].register_forward_hook(plant)]
    for mode in ("last", "first"):
        seen = []
        with compress(model, ADSC(layers=(1,), factor=factor, mode=mode)):
            own = layers[1].register_forward_pre_hook(lambda module, args, seen=seen: seen.append(args[0]))
            with torch.no_grad():
                model(**given)
            own.remove()
        rows = seen[0][:, 1 : 1 + CELLS // factor]
        there = torch.cat([rows[..., :24], rows[..., 24:]], 1)
        found[mode] = float((torch.cdist(shows, there) < 1e-3).any(-1).float().mean())
    handles[0].remove()
    assert found["last"] > found["first"] and found["last"] == (1.0 if factor == 2 else 0.5), found
