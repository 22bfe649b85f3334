"""Loss of the heads, stages of the audio training, and a resumed run that equals an unbroken one."""

import argparse
from itertools import pairwise

import pytest
import torch

from laconic.tasks.audio.questions import EVALUATION_SEED, QUESTIONS
from laconic.testbed.train_audio import SECONDS, AuxiliaryHeads, Trainer, parser


def settings(folder, *more) -> argparse.Namespace:
    return parser().parse_args(["--out", str(folder), "--rows", "3", "--questions", "3", *more])


def test_the_last_stage_asks_everything_about_the_longest_clips_and_no_stage_forgets():
    assert set(Trainer.stages[-1]) == set(QUESTIONS) and SECONDS[-1] == 8 and len(SECONDS) == len(Trainer.stages)
    assert all(set(a) <= set(b) for a, b in pairwise(Trainer.stages)) and list(SECONDS) == sorted(SECONDS)


def test_repeated_steps_on_one_batch_lower_its_loss(tmp_path):
    trainer = Trainer(settings(tmp_path, "--lr", "3e-3", "--muon-lr", "6e-3"))
    trainer.state |= {"stage": len(trainer.stages) - 1, "step": 100}
    batch = trainer.draw()
    trainer.draw = lambda: batch
    first = trainer.losses(batch)[0].item()
    for _ in range(6):
        trainer.step()
    assert trainer.losses(batch)[0].item() < 0.8 * first


def test_the_first_stage_trains_encoder_and_projector_alone(tmp_path):
    trainer = Trainer(settings(tmp_path))
    loss, right, kinds, _ = trainer.losses(trainer.draw())
    loss.backward()
    assert right is None and kinds is None
    moved = {name.split(".")[1] for name, p in trainer.model.named_parameters() if p.grad is not None and p.grad.any()}
    assert moved == {"audio_tower", "multi_modal_projector", "language_model"}
    decoder = [name for name, p in trainer.model.model.language_model.named_parameters() if p.grad is not None]
    assert decoder == ["embed_tokens.weight"]


def test_a_resumed_run_equals_an_unbroken_one(tmp_path):
    unbroken, broken = Trainer(settings(tmp_path / "a")), Trainer(settings(tmp_path / "b"))
    for trainer in (unbroken, broken):
        trainer.state["stage"] = len(trainer.stages) - 1
        trainer.step()
    broken.save()
    resumed = Trainer(settings(tmp_path / "b", "--resume"))
    resumed.load()
    unbroken.step()
    resumed.step()
    for a, b in zip(unbroken.model.parameters(), resumed.model.parameters(), strict=True):
        torch.testing.assert_close(a, b)
    for a, b in zip(unbroken.heads.parameters(), resumed.heads.parameters(), strict=True):
        torch.testing.assert_close(a, b)
    assert unbroken.state["step"] == resumed.state["step"] == 2


def test_steps_beyond_the_training_seeds_are_refused(tmp_path):
    trainer = Trainer(settings(tmp_path))
    trainer.state["step"] = EVALUATION_SEED
    with pytest.raises(ValueError, match="evaluation"):
        trainer.draw()


def test_heads_weigh_sound_and_silence_alike(tmp_path):
    trainer = Trainer(settings(tmp_path))
    batch = trainer.draw()
    heads, words = AuxiliaryHeads(16), torch.randn(352, 16)
    projected = torch.randn(int(batch.lengths.sum()), 16)
    loss, share = heads(projected, words, batch)
    sound, silent, right, row = [], [], [], 0
    for b, length in enumerate(batch.lengths.tolist()):
        for t in range(length):
            logits = (words @ projected[row]).log_softmax(0)
            place = heads.place(projected[row]).log_softmax(0)[batch.places[b, t]]
            first, second = batch.words[b, t].tolist()
            each = -(logits[first] + logits[second]) / 2 - 0.3 * place
            (silent if first == second else sound).append(each)
            if first != second:
                right.append(set(logits.topk(2).indices.tolist()) == {first, second})
            row += 1
    torch.testing.assert_close(loss, torch.stack(sound).mean() + torch.stack(silent).mean())
    assert share == pytest.approx(sum(right) / len(right))
