"""What the trainings of visual compressors share."""

import json

import pytest
import torch
from helpers.visual_fit import processor
from torch import nn

from laconic import UnsupportedModelError
from laconic.fit.images import conversations, scenes, with_answers
from laconic.fit.visual import VisualFit


class Whole(VisualFit):
    """Compresses nothing."""

    method = "whole"

    def network(self, model):
        return nn.Linear(1, 1)

    def logits(self, asked, rng):
        each = len(asked.ids) // len(asked.features)
        return self.answered(asked, asked.features.repeat_interleave(each, 0), self.words(asked))


@pytest.fixture(scope="module")
def reader():
    return processor()


def test_the_layout_of_training_is_the_prompt_of_the_model(vlm, reader):
    fit = Whole(images=2, questions=3)
    fit.build(vlm, reader)
    asked = fit.asked(5)
    samples = [one for i in (10, 11) for one in fit.shown(i)][: len(asked.ids)]
    given, labels = with_answers(reader, samples)
    assert torch.equal(asked.labels, labels) and len(asked.features) == 2
    want, found = vlm(**given).logits, fit.logits(asked, None)
    at = labels[:, 1:] != -100
    torch.testing.assert_close(found[:, :-1][at], want[:, :-1][at], rtol=1e-4, atol=1e-4)
    loss = torch.nn.functional.cross_entropy(want[:, :-1][at], labels[:, 1:][at])
    torch.testing.assert_close(fit.loss((asked, None)), loss, rtol=1e-4, atol=1e-5)
    assert torch.equal(asked.text, (given["input_ids"] != 6) & (given["attention_mask"] == 1) & (labels == -100))
    states = vlm.model.vision_tower(given["pixel_values"][:1], output_hidden_states=True).hidden_states
    torch.testing.assert_close(asked.states[2][:1], states[2][:, 1:], rtol=1e-4, atol=1e-4)


def test_several_questions_about_one_image():
    about = conversations("", 0, 4)
    asked = about(7)
    assert 1 < len(asked) <= 4 and len({one.question for one in asked}) == len(asked)
    assert len({one.shown()[0].tobytes() for one in asked}) == 1
    assert [one.question for one in about(7)] == [one.question for one in asked] != [one.question for one in about(8)]
    assert conversations("", 1, 4)(7)[0].shown()[0].tobytes() != asked[0].shown()[0].tobytes()  # another seed, other images


def test_a_file_has_one_question_an_image(tmp_path):
    one = scenes(1, 5)[0]
    one.shown()[0].save(tmp_path / "a.png")
    (tmp_path / "data.jsonl").write_text(json.dumps({"image": "a.png", "question": "Q?", "answer": "yes"}) + "\n")
    assert [x.question for x in conversations(str(tmp_path / "data.jsonl"), 0, 4)(3)] == ["Q?"]


def test_prompts_of_another_number_of_patches_are_refused(vlm, reader, monkeypatch):
    fit = Whole(images=1, questions=1)
    fit.build(vlm, reader)
    fit.side = 10
    with pytest.raises(UnsupportedModelError, match=r"one view of 100 patches each; these have \[144\] visual tokens"):
        fit.asked(0)
