"""Requests with sound: refused beside images and earlier turns, which go alone; and in a context that is read once."""

import numpy as np
import pytest
from PIL import Image

from laconic.engine.engine import Engine, Request
from laconic.prompts.text import PromptError
from laconic.testbed.audio_model import build_model, build_processor, build_tokenizer

SOUND = np.random.default_rng(0).uniform(-0.5, 0.5, 16_000).astype(np.float32)
HISTORY = [{"role": "user", "content": "How many?"}, {"role": "assistant", "content": "2"}]


@pytest.fixture(scope="module")
def engine():
    return Engine(build_model().eval(), build_processor(build_tokenizer()))


def test_sound_is_asked_about(engine):
    answer = engine.answer(Request(question="How many beeps are there?", sounds=[SOUND], methods=[], max_new_tokens=2))
    assert answer.prompt.tokens_in > 12 and answer.prompt.kv_bytes == answer.prompt.kv_bytes_full


def test_earlier_turns_need_no_sound(engine):
    prompt = engine.prompt(Request(question="And chirps?", history=HISTORY))
    assert not prompt.inputs and "How many?" in prompt.text


def test_what_does_not_go_with_sound_is_refused(engine):
    given = {"question": "How many?", "sounds": [SOUND]}
    for more in ({"history": HISTORY}, {"images": [Image.new("RGB", (8, 8))]}):
        with pytest.raises(PromptError, match="goes neither with images nor with history"):
            engine.prompt(Request(**given, **more))
    with pytest.raises(PromptError, match="cannot hold sound yet; ask each question by itself"):
        engine.read(Request(**given))
