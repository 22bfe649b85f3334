"""A question in a packed batch is answered as it is alone: same logits as transformers' own forward on its own prompt."""

import random

import pytest
import torch

from laconic.tasks.audio.questions import QUESTIONS, dialogue
from laconic.tasks.audio.sounds import RATE, draw, render
from laconic.testbed.audio_model import SILENCE, TOKEN_SECONDS, build_model, build_processor, build_tokenizer
from laconic.testbed.sound_batch import KIND_NAMES, Batches
from laconic.testbed.train_audio import Trainer, parser


@pytest.fixture(scope="module")
def processor():
    return build_processor(build_tokenizer())


@pytest.fixture(scope="module")
def clips():
    return [draw(random.Random(seed)) for seed in (1, 3, 8)]


@pytest.fixture(scope="module")
def asked(clips):
    return [dialogue(random.Random(i), clip, 3, dict.fromkeys(QUESTIONS, 1.0)) for i, clip in enumerate(clips)]


def own_logits(model, processor, clip, turns):
    """Logits for the answer of the last of ``turns``, each of the others answered before it."""
    text = "<s><|user|><|audio_bos|><|AUDIO|><|audio_eos|>"
    text += "<|user|>".join(f"{q.text}</s><|assistant|>{q.answer}</s>" for q in turns)
    inputs = processor(text=text, audio=[render(clip)], sampling_rate=RATE, return_tensors="pt")
    length = len(processor.tokenizer.encode(turns[-1].answer, add_special_tokens=False)) + 1
    with torch.no_grad():
        return model(**inputs).logits[0, -length - 1 : -1], inputs["input_ids"][0, -length:]


@pytest.mark.parametrize("chained", [False, True])
def test_packed_questions_are_answered_as_in_their_own_prompt(tmp_path, processor, clips, asked, chained):
    """The padding of the batch's shorter clips is not run by the training and masked by the model: neither may matter."""
    batch = Batches(processor).collate(clips, asked, [chained] * len(clips))
    trainer = Trainer(parser().parse_args(["--out", str(tmp_path)]))
    model = build_model().eval()
    trainer.model.load_state_dict(model.state_dict())
    with torch.no_grad():
        logits = trainer.answers(batch, trainer.projected(batch))
    number = 0
    for clip, questions in zip(clips, asked, strict=True):
        for i, question in enumerate(questions):
            expected, ids = own_logits(model, processor, clip, questions[: i + 1] if chained else [question])
            mine = batch.packed.question == number
            assert batch.packed.targets[mine].tolist() == ids.tolist()
            assert KIND_NAMES[batch.kinds[number]] == question.kind
            torch.testing.assert_close(logits[mine], expected, atol=2e-5, rtol=1e-4)
            number += 1
    assert number == len(batch.kinds)


def test_words_and_places_say_what_is_heard(processor, clips, asked):
    batch = Batches(processor).collate(clips, asked, [False] * len(clips))
    decode = processor.tokenizer.decode
    for b, clip in enumerate(clips):
        assert batch.lengths[b] == round(clip.seconds / TOKEN_SECONDS - 0.51) or batch.lengths[b] == int(
            clip.seconds / TOKEN_SECONDS + 0.25
        )
        spoken = [event for event in clip.events if event.name.isdigit()]
        for t in range(int(batch.lengths[b])):
            middle = (t + 0.5) * TOKEN_SECONDS
            events = [event for event in clip.events if event.start <= middle < event.end]
            words = decode(batch.words[b, t])
            if not events:
                assert words == SILENCE * 2 and batch.places[b, t] == 0
            elif events[0].name.isdigit():
                assert words == f" digit{events[0].name}"
                assert batch.places[b, t] == 1 + spoken.index(events[0])
            else:
                assert words == f" {events[0].name}" and batch.places[b, t] == 0


def test_no_kinds_give_clips_alone(processor):
    batch = Batches(processor).draw(random.Random(0), 2, 4, {}, 3.0)
    assert batch.features.shape == (2, 64, 400) and not len(batch.packed.targets) and batch.lengths.max() <= 38
