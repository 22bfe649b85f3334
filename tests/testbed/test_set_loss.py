"""The loss asks for mass on any acceptable id."""

import pytest
import torch

from laconic.tasks.text.mixture import Example
from laconic.testbed.set_loss import collate, set_loss


def test_one_acceptable_id_is_cross_entropy():
    torch.manual_seed(0)
    logits, wanted = torch.randn(3, 7), torch.tensor([1, 4, 6])
    loss, hits = set_loss(logits, wanted[:, None], torch.ones(3))
    assert float(loss) == pytest.approx(float(torch.nn.functional.cross_entropy(logits, wanted)))
    assert hits.tolist() == (logits.argmax(1) == wanted).tolist()


def test_several_acceptable_ids_share_the_mass():
    logits = torch.tensor([[2.0, 1.0, 0.0, -1.0], [0.0, 0.0, 5.0, 0.0]])
    loss, hits = set_loss(logits, torch.tensor([[0, 1], [3, -1]]), torch.tensor([1.0, 3.0]))
    p = logits.softmax(1)
    by_hand = -(1 * (p[0, 0] + p[0, 1]).log() + 3 * p[1, 3].log()) / 4
    assert float(loss) == pytest.approx(float(by_hand)) and hits.tolist() == [True, False]


def test_positions_are_those_before_the_supervised_tokens():
    examples = [Example([5, 6, 7], {2: ((7,), 1.0, 0)}), Example([8, 9], {1: ((9, 4), 0.5, 1)})]
    ids, at, accept, weight, kind = collate(examples, 4, "cpu")
    assert ids.tolist() == [[5, 6, 7, 0], [8, 9, 0, 0]] and at.tolist() == [1, 4]
    assert accept.tolist() == [[7, -1], [9, 4]] and weight.tolist() == [1.0, 0.5] and kind.tolist() == [0, 1]
