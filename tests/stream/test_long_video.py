"""Videos that are read as their frames come. What methods make of them is tested with the methods."""

from types import SimpleNamespace

import pytest
import torch
from helpers.streaming_tools import prompt, video_testbed
from PIL import Image

import laconic
from laconic import MediaError, SessionError
from laconic.stream.long_video import ask, pixels_of


class Everything:
    """Keeps all tokens; counts the frames that come together."""

    name = "everything"

    def __init__(self):
        self.together, self.kept = [], []

    def attach(self, model):
        pass

    def film(self, model, question):
        self.question = question
        return self

    def add(self, tokens, states):
        self.together.append(len(tokens))
        self.kept.append(tokens.flatten(0, 2))

    def soft(self):
        return torch.cat(self.kept)


def test_the_prompt_is_the_models_own():
    model, tokenizer = video_testbed()
    frames = torch.randint(0, 256, (5, 48, 48, 3), dtype=torch.uint8).numpy()
    given, options = prompt(tokenizer, frames), {"max_new_tokens": 4, "do_sample": False}
    said = model.generate(**given, **options)[0, given["input_ids"].shape[1] :]
    method, drawn = Everything(), []
    coming = (drawn.append(len(method.together)) or Image.fromarray(frame) for frame in frames)
    answer = ask(model, tokenizer, method, coming, "What does the sign say?", at_once=2, **options)
    assert answer == tokenizer.decode(said, skip_special_tokens=True).strip()
    assert method.together == [2, 2, 1] and drawn == [0, 0, 1, 1, 2]  # a frame is taken when its turn has come
    ids = given["input_ids"][0]
    text = model.get_input_embeddings()(ids[ids != model.config.video_token_id])
    torch.testing.assert_close(method.question, text)


def test_pixels_are_normalised_as_the_reader_says():
    images = [Image.new("RGB", (3, 5), (255, 0, 51))] * 2
    torch.testing.assert_close(pixels_of(images, 4, None)[1, :, 2, 3], torch.tensor([1.0, -1.0, -0.6]))
    reader = SimpleNamespace(image_processor=SimpleNamespace(image_mean=[0.0, 0.5, 0.2], image_std=[0.5, 1.0, 0.1]))
    torch.testing.assert_close(pixels_of(images, 4, reader)[0, :, 0, 0], torch.tensor([2.0, -0.5, 0.0]))


def test_what_makes_no_sense_is_refused():
    model, tokenizer = video_testbed()
    with pytest.raises(SessionError, match="evs needs all frames of a video at once"):
        ask(model, tokenizer, laconic.create_method("evs"), [], "Q?")
    with pytest.raises(MediaError, match="no frame"):
        ask(model, tokenizer, Everything(), [], "Q?")
