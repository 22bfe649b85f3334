"""Prompts that show one video."""

import pytest
import torch

from laconic.prompts.clip import around
from laconic.prompts.text import PromptError
from laconic.testbed.clip_batch import Batches
from laconic.testbed.video_model import VIDEO, build_tokenizer


def test_what_stands_around_the_video_is_what_the_testbed_is_trained_on():
    tokenizer = build_tokenizer()
    batches, place = Batches(tokenizer), tokenizer.convert_tokens_to_ids(VIDEO)
    before, after = around(tokenizer, "What does the sign say?", place)
    assert before.tolist() == batches.opening(0)[:2]
    rest = [*batches.writer.encode("What does the sign say?"), tokenizer.eos_token_id, batches.writer.assistant]
    assert after.tolist() == rest and torch.is_tensor(after)


def test_a_template_without_a_place_for_a_video():
    with pytest.raises(PromptError, match="writes 0 places for a video"):
        around(build_tokenizer(), "Q?", 9999)
