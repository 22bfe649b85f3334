"""What the trainings of video compressors share."""

import random

import pytest
import torch
from helpers.streaming_tools import prompt, video_testbed
from torch import nn

from laconic.fit.video import VideoFit


class Whole(VideoFit):
    """Compresses nothing."""

    method = "whole"

    def network(self, model):
        return nn.Linear(1, 1)

    def logits(self, asked, rng):
        each = len(asked.ids) // len(asked.features)
        return self.answered(asked, asked.features.flatten(1, 3).repeat_interleave(each, 0), self.words(asked))


@pytest.fixture(scope="module")
def fit():
    fit = Whole(images=2, questions=3, frames=(4, 8))
    fit.build(*video_testbed())
    return fit


def test_the_layout_of_training_is_the_prompt_of_the_model(fit):
    clips = fit.drawn(random.Random(1))
    asked, each = fit.filmed(clips), min(len(clip.questions) for clip in clips)
    assert len({len(clip.frames) for clip in clips}) == 1 and len(asked.ids) == 2 * each
    found = fit.logits(asked, None)
    rows = [(clip.frames, question) for clip in clips for question in clip.questions[:each]]
    for b, (frames, question) in enumerate(rows):
        given = prompt(fit.processor, frames, question.text)
        end = int((asked.labels[b] != -100).sum())
        torch.testing.assert_close(found[b, -end - 1], fit.model(**given).logits[0, -1], rtol=1e-4, atol=1e-4)
        answer = asked.labels[b, -end:].tolist()
        assert fit.processor.decode(answer[:-1]) == question.answer and answer[-1] == fit.processor.eos_token_id
        text = given["input_ids"][0][given["input_ids"][0] != fit.image]
        assert torch.equal(asked.ids[b][asked.text[b]], text)


def test_equal_steps_give_equal_clips_and_others_differ(fit, monkeypatch):
    one, same, other = (fit.asked(n).ids for n in (3, 3, 4))
    assert torch.equal(one, same) and not (one.shape == other.shape and torch.equal(one, other))
    assert {len(fit.drawn(random.Random(n))[0].frames) for n in range(8)} == {4, 8}
    monkeypatch.setattr(fit, "seed", 1)
    assert fit.asked(3).ids.tolist() != one.tolist()


def test_frames_that_show_what_is_asked_about(fit):
    for clip in fit.drawn(random.Random(2)):
        assert all(len(where) == len(clip.frames) and any(where) for where in clip.where)


def test_settings_that_make_no_sense():
    with pytest.raises(ValueError, match="clips have at least 4 frames"):
        Whole(frames=(3,))
    with pytest.raises(ValueError, match="no file of videos is read"):
        Whole(file="a.jsonl")
