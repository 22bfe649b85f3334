"""Attention, loss, schedule and stages of the vision training, and a resumed run that equals an unbroken one."""

import argparse
from itertools import pairwise

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from laconic.tasks.scenes.questions import EVALUATION_SEED, QUESTIONS
from laconic.testbed.staged import plain_attention
from laconic.testbed.train_vlm import STAGES, AuxiliaryHeads, Trainer, parser


def settings(folder, *more) -> argparse.Namespace:
    return parser().parse_args(["--out", str(folder), "--rows", "3", "--questions", "3", "--no-bf16", *more])


def test_plain_attention_is_attention():
    q, k, v = torch.randn(2, 4, 7, 8), torch.randn(2, 2, 7, 8), torch.randn(2, 2, 7, 8)
    mask = torch.zeros(2, 1, 7, 7).masked_fill(~torch.ones(7, 7, dtype=torch.bool).tril(), -1e4)
    for bias in (None, mask):
        out, _ = plain_attention(torch.nn.Identity(), q, k, v, bias, 0.3)
        expected = scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=0.3, enable_gqa=True)
        torch.testing.assert_close(out, expected.transpose(1, 2))


def test_the_last_stage_asks_everything_and_no_stage_forgets():
    assert set(STAGES[-1]) == set(QUESTIONS)
    assert all(set(a) <= set(b) for a, b in pairwise(STAGES))


@pytest.mark.slow
def test_repeated_steps_on_one_batch_lower_its_loss(tmp_path):
    trainer = Trainer(settings(tmp_path))
    trainer.state |= {"stage": len(STAGES) - 1, "step": 100}
    batch = trainer.draw()
    trainer.draw = lambda: batch
    first = trainer.losses(batch)[0].item()
    for _ in range(6):
        trainer.step()
    assert trainer.losses(batch)[0].item() < 0.8 * first


@pytest.mark.slow
def test_a_resumed_run_equals_an_unbroken_one(tmp_path):
    unbroken, broken = Trainer(settings(tmp_path / "a")), Trainer(settings(tmp_path / "b"))
    for trainer in (unbroken, broken):
        trainer.state["stage"] = len(STAGES) - 1
        trainer.step()
    broken.save()
    resumed = Trainer(settings(tmp_path / "b", "--resume"))
    resumed.load()
    unbroken.step()
    resumed.step()
    # JSON turns the pairs of running means into lists.
    plain = [
        {k: [list(v) for v in s["ema"].values()] if k == "ema" else v for k, v in s.items()}
        for s in (unbroken.state, resumed.state)
    ]
    assert plain[0] == plain[1]
    for a, b in zip(unbroken.model.parameters(), resumed.model.parameters(), strict=True):
        torch.testing.assert_close(a, b)
    for a, b in zip(unbroken.heads.parameters(), resumed.heads.parameters(), strict=True):
        torch.testing.assert_close(a, b)
    assert {path.suffix for path in (tmp_path / "b").iterdir()} <= {".json", ".safetensors", ".jinja", ".log"}


def test_steps_beyond_the_training_seeds_are_refused(tmp_path):
    trainer = Trainer(settings(tmp_path))
    trainer.state["step"] = EVALUATION_SEED
    with pytest.raises(ValueError, match="evaluation"):
        trainer.draw()


def test_rate_warms_up_stays_and_falls_to_zero(tmp_path):
    trainer = Trainer(settings(tmp_path, "--decay-at", "5000", "--decay-steps", "200"))
    rates = []
    for step in (0, 99, 5000, 5100, 5200, 6000):
        trainer.state["step"] = step
        rates.append(trainer.rate())
    assert rates == pytest.approx([0.01, 1.0, 1.0, 0.5, 0.0, 0.0])


def test_what_is_answered_worse_is_asked_more(tmp_path):
    trainer = Trainer(settings(tmp_path))
    trainer.state |= {"stage": 1, "ema": {"existence": (0.9, 100), "colour": (0.4, 100)}}
    assert trainer.weights() == pytest.approx({"existence": 0.2, "colour": 0.7})
    trainer.state["stage"] = 0
    assert trainer.weights() == {}


def test_stages_end_at_their_gate_or_after_their_steps(tmp_path):
    trainer = Trainer(settings(tmp_path, "--gate", "0.9", "--stage-steps", "50"))
    trainer.state |= {"ema": {"patches": (0.8, 25)}, "stage_step": 49}
    trainer.advance()
    assert trainer.state["stage"] == 0
    trainer.state["ema"]["patches"] = (0.91, 25)
    trainer.advance()
    assert (trainer.state["stage"], trainer.state["stage_step"]) == (1, 0)
    trainer.state |= {"ema": {"existence": (0.95, 99), "colour": (0.2, 99)}, "stage_step": 50}
    trainer.advance()
    assert trainer.state["stage"] == 2


def test_running_means_weigh_every_answer_alike(tmp_path):
    trainer = Trainer(settings(tmp_path))
    trainer.fold("count", 1.0, 3)
    trainer.fold("count", 0.0, 1)
    assert trainer.state["ema"]["count"] == (pytest.approx(0.75), 4)
    trainer.state["ema"]["count"] = (0.5, 1000)
    trainer.fold("count", 1.0, 10)
    assert trainer.state["ema"]["count"] == (pytest.approx(0.505), 1000)


def test_heads_weigh_occupied_and_empty_patches_alike(tmp_path):
    trainer = Trainer(settings(tmp_path))
    batch = trainer.draw()
    heads = AuxiliaryHeads(16)
    features, summary = torch.randn(3, 144, 16), torch.randn(3, 16)
    loss, share = heads(features, summary, batch)
    logits = heads.patch(features)
    parts, right, begin = [], [], 0
    for row, classes in enumerate((7, 7, 6, 37, 9)):
        own = logits[..., begin : begin + classes].log_softmax(-1)
        begin += classes
        full, empty = [], []
        for b in range(3):
            for p in range(144):
                label = batch.patches[b, row].flatten()[p].item()
                (full if label else empty).append(-own[b, p, label])
                if label:
                    right.append(float(own[b, p].argmax() == label))
        parts.append((torch.stack(full).mean() + torch.stack(empty).mean()) / 5)
    p = heads.scene(summary).sigmoid()
    names = -(batch.names * p.log() + (1 - batch.names) * (1 - p).log()).mean()
    torch.testing.assert_close(loss, sum(parts) + names)
    assert share == pytest.approx(sum(right) / len(right))
