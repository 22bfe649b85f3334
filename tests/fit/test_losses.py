"""Losses of a stream that is shorter than its labels."""

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from laconic.fit.losses import RightAnswers, answer_loss, right, short_labels

LABELS = torch.tensor([[-100, -100, 3, 4, 5], [-100, 1, 2, 3, -100]])


class Shortened:
    """A session of two layers whose last one kept these tokens."""

    stack = SimpleNamespace(layers=[None, None])
    rows = (torch.tensor([0, 2, 3, 4]), torch.tensor([1, 3, 4]))

    def kept(self, layer, row):
        assert layer == 1
        return self.rows[row]


def test_labels_are_those_of_the_tokens_that_are_left():
    assert short_labels(None, LABELS) is LABELS
    assert short_labels(Shortened(), LABELS).tolist() == [[-100, 3, 4, 5], [-100, 1, 3, -100]]


def test_the_loss_is_cross_entropy_of_the_next_label():
    torch.manual_seed(0)
    logits = torch.randn(2, 5, 7)
    plain = F.cross_entropy(logits[:, :-1].flatten(0, 1), LABELS[:, 1:].flatten(), ignore_index=-100)
    assert float(answer_loss(None, logits, LABELS)) == pytest.approx(float(plain))
    assert float(answer_loss(None, logits, LABELS, count=12)) == pytest.approx(float(plain) * 6 / 12)
    short = answer_loss(Shortened(), logits[:, :4], LABELS)
    places = [(0, 0, 3), (0, 1, 4), (0, 2, 5), (1, 0, 1), (1, 1, 3)]
    by_hand = -sum(logits[b, i].log_softmax(-1)[token] for b, i, token in places) / 5
    assert float(short) == pytest.approx(float(by_hand), rel=1e-5)


def test_right_rows_are_right_in_every_token():
    logits = torch.eye(4)[torch.tensor([[1, 2, 3, 0], [1, 2, 0, 0]])]
    wanted = torch.tensor([[-100, 2, 3], [-100, 2, 3]])
    assert right(logits, wanted).tolist() == [True, False]


def test_right_answers_are_told_once():
    answers = RightAnswers()
    answers.note(torch.tensor([True, False]))
    answers.note(torch.tensor([[1.0, 1.0]]))
    assert answers.told() == "right 75.0 %"
    answers.note(torch.tensor([False]))
    assert answers.told() == "right 0.0 %" and answers.told() == ""  # a training that asks nothing has none
