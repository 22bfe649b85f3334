"""Answers through the processor and generate(), the mark of hard samples, and the table, on a model of known behaviour."""

import numpy as np
import pytest
import torch
from transformers import LlavaForConditionalGeneration

from laconic.prompts.batch import encode, turn
from laconic.tasks.scenes.questions import QUESTIONS, make, pose
from laconic.testbed.evaluate_vlm import ask, marks, table
from laconic.testbed.vlm_model import VISUAL_TOKENS, build_model, build_processor, build_tokenizer


@pytest.fixture(scope="module")
def processor():
    return build_processor(build_tokenizer())


class Oracle(LlavaForConditionalGeneration):
    """Answers rightly while the image shows detail (neighbouring pixels that differ much), else with "no"."""

    def __init__(self, processor, samples):
        super().__init__(build_model().config)
        self.tokenizer = processor.tokenizer
        self.right = [sample.answers[0] for sample in samples]

    def generate(self, input_ids, pixel_values, attention_mask, max_new_tokens, do_sample, stopping_criteria, **options):
        assert not do_sample
        stopping_criteria(input_ids, None)  # as after the first token
        sharp = (pixel_values[..., 1:] - pixel_values[..., :-1]).abs().amax((1, 2, 3)) > 1.2
        told = [self.tokenizer.encode(self.right[i] if on else "no") for i, on in enumerate(sharp)]
        padded = torch.zeros(len(told), max_new_tokens, dtype=torch.long)
        for row, ids in zip(padded, told, strict=True):
            row[: len(ids)] = torch.tensor(ids)
        return torch.cat([input_ids, padded], 1)


def test_a_chat_shows_the_image_before_the_question(processor):
    sample = make("colour", 5)
    text = turn(processor, sample.question)
    assert text == f"<s><|user|><image>{sample.question}</s><|assistant|>"


def test_an_answer_does_not_depend_on_its_batch(processor):
    torch.manual_seed(0)
    model = build_model().eval()
    samples = [make(kind, 2) for kind in ("colour", "relation", "reading")]
    images = [sample.shown()[0] for sample in samples]
    inputs = encode(processor, [s.question for s in samples], images)
    assert inputs["attention_mask"].sum(1).unique().numel() > 1
    assert (inputs["input_ids"] == model.config.image_token_id).sum(1).tolist() == [VISUAL_TOKENS] * 3
    together = [answer.text for answer in ask(model, processor, samples)]
    assert together == [ask(model, processor, [sample])[0].text for sample in samples]


def test_marks_tell_what_survives_fewer_pixels(processor):
    small = [seed for seed in range(40) if all(sign.scale == 1 for sign in pose("reading", seed)[0].signs)]
    samples = [make("reading", seed) for seed in small[:5]]
    right, survived = marks(Oracle(processor, samples), processor, samples)
    assert right.all() and not survived.any()


def test_the_table_has_a_row_for_each_kind_and_holds_the_gate(processor, capsys):
    class Dumb(Oracle):
        def __init__(self, processor):
            super().__init__(processor, [])

        def generate(self, **inputs):
            self.right = ["no"] * len(inputs["input_ids"])
            return super().generate(**inputs)

    assert table(Dumb(processor), processor, samples=6) is False
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in lines[2:]] == list(QUESTIONS)
    truly = np.mean([make("existence", 1_000_000 + i).answers[0] == "no" for i in range(6)])
    assert lines[2].split("|")[2].strip() == f"{100 * truly:.1f}"
    assert lines[2].split("|")[5].strip() in ("0.0", "-")
