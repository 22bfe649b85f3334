"""The loss, the learning-rate schedule, and a resumed run that goes on exactly where it stopped."""

import argparse

import pytest
import torch
import torch.distributed as dist
from torch.nn.functional import cross_entropy

from laconic.tasks.text.mixture import Example
from laconic.testbed.set_loss import collate, set_loss
from laconic.testbed.train_lm import Trainer, parser


def test_one_acceptable_id_is_cross_entropy():
    logits, target = torch.randn(5, 11), torch.tensor([0, 3, 10, 7, 7])
    loss, hits = set_loss(logits, target[:, None], torch.ones(5))
    torch.testing.assert_close(loss, cross_entropy(logits, target))
    assert hits.tolist() == (logits.argmax(1) == target).tolist()


def test_any_acceptable_id_counts_and_padding_does_not():
    logits = torch.tensor([[0.0, 0.0, 0.0, 9.0]])
    loss, hits = set_loss(logits, torch.tensor([[3, 1, -1]]), torch.ones(1))
    share = logits.softmax(1)[0, [1, 3]].sum()
    torch.testing.assert_close(loss, -share.log())
    assert hits.tolist() == [True]
    assert set_loss(logits, torch.tensor([[0, 1, -1]]), torch.ones(1))[1].tolist() == [False]


def test_collate_points_at_the_position_before_each_target():
    examples = [Example([1, 5, 6], {2: ((6,), 1.0, 0)}), Example([1, 7, 8, 9], {1: ((7, 9), 3.0, 2)})]
    ids, at, accept, weight, kind = collate(examples, 4, "cpu")
    assert ids.tolist() == [[1, 5, 6, 0], [1, 7, 8, 9]]
    assert at.tolist() == [1, 4]
    assert accept.tolist() == [[6, -1], [7, 9]]
    assert (weight.tolist(), kind.tolist()) == ([1.0, 3.0], [0, 2])


@pytest.fixture
def one_worker(tmp_path):
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def settings(folder, *more) -> argparse.Namespace:
    return parser().parse_args(["--out", str(folder), "--workers", "1", "--tokens", "256", "--no-bf16", *more])


@pytest.mark.slow
def test_a_resumed_run_equals_an_unbroken_one(tmp_path, one_worker):
    unbroken = Trainer(settings(tmp_path / "a"))
    for _ in range(4):
        unbroken.step()
    broken = Trainer(settings(tmp_path / "b"))
    broken.step()
    broken.step()
    broken.save()
    resumed = Trainer(settings(tmp_path / "b", "--resume"))
    resumed.load()
    resumed.step()
    resumed.step()
    assert resumed.state == unbroken.state
    for a, b in zip(resumed.model.parameters(), unbroken.model.parameters(), strict=True):
        torch.testing.assert_close(a, b)
    assert not [path for path in (tmp_path / "b").iterdir() if path.suffix in (".pt", ".bin", ".pkl")]


def test_rate_warms_up_stays_and_falls_to_zero(tmp_path, one_worker):
    trainer = Trainer(settings(tmp_path, "--decay-after", "10", "--decay-steps", "200"))
    rates = []
    for step, minutes in ((0, 0), (99, 1), (5000, 9), (5100, 10), (5200, 11), (5300, 12)):
        trainer.state |= {"step": step, "seconds": minutes * 60}
        trainer.decay()
        rates.append(trainer.rate())
    assert rates == pytest.approx([0.01, 1.0, 1.0, 1.0, 0.5, 0.0])


def test_decay_by_the_clock(tmp_path, one_worker):
    trainer = Trainer(settings(tmp_path, "--decay-after", "10", "--decay-minutes", "20"))
    rates = []
    for minutes in (9, 10, 15, 30, 31):
        trainer.state |= {"step": 5000, "seconds": minutes * 60}
        trainer.decay()
        rates.append(trainer.rate())
    assert rates == pytest.approx([1.0, 1.0, 0.75, 0.0, 0.0])
