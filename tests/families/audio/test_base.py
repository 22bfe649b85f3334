"""Where the audio tokens of a prompt are, when each begins, and what stands for padding."""

import pytest
import torch
from helpers.audio_zoo import AUDIO, heard, qwen2_audio

import laconic
from laconic import UnsupportedModelError
from laconic.families import audio
from laconic.families.vision import VisionWatch, Visual, supported_vision_families, vision_family_of


def watched(model, inputs) -> Visual:
    """What hooks find in one call."""
    found = []
    with VisionWatch(model) as watch:
        handle = model.model.language_model.register_forward_pre_hook(lambda *_: found.append(watch.visual))
        model(**inputs)
        handle.remove()
    return found[0]


def test_the_family_is_found_and_is_no_vision_family():
    model = qwen2_audio()
    family = vision_family_of(model)
    assert family.name == "Qwen2-Audio" and family.audio
    assert family.seconds(model) == pytest.approx(0.04)
    assert family.frames(model) == 4
    assert family not in supported_vision_families()
    model.model.audio_tower.config.frame_seconds = 0.02  # as testbed/audio has it
    assert family.seconds(model) == pytest.approx(0.08)


@torch.no_grad()
def test_spans_features_and_times():
    model, inputs = qwen2_audio(), heard([12, 30])
    visual = watched(model, inputs)
    assert [(span.modality, span.image, span.grid) for span in visual.spans] == [
        ("audio", 0, (1, 12)),
        ("audio", 1, (1, 30)),
    ]
    assert torch.equal(visual.mask, inputs["input_ids"] == AUDIO)
    assert not visual.separators.any()
    for clip, span in enumerate(visual.spans):
        assert torch.equal(inputs["input_ids"][0, span.tokens], torch.full((len(span.tokens),), AUDIO))
        features = visual.features(span)
        assert torch.equal(features, visual.calls["audio"].after[clip, : len(span.tokens)])
        assert torch.allclose(audio.seconds(visual, span), torch.arange(len(span.tokens)) * 0.04)


@torch.no_grad()
def test_features_are_those_of_the_sound_alone_whatever_the_padding():
    """The masked reference: the same sound in a window whose padding holds noise."""
    model, inputs = qwen2_audio(), heard([12])
    loud = inputs | {"input_features": inputs["input_features"].clone()}
    loud["input_features"][0, :, 52:] = 3.0  # the convolutions of the last token see four columns more
    quiet, noisy = (watched(model, given) for given in (inputs, loud))
    assert torch.allclose(quiet.features(quiet.spans[0])[:11], noisy.features(noisy.spans[0])[:11], atol=1e-5)


@torch.no_grad()
def test_energy_is_the_mean_of_the_columns_of_a_token():
    inputs = heard([12, 30])
    visual = watched(qwen2_audio(), inputs)
    for clip, span in enumerate(visual.spans):
        for token, value in enumerate(audio.energy(visual, span).tolist()):
            columns = inputs["input_features"][clip, :, 4 * token : 4 * token + 4]
            assert value == pytest.approx(float(columns.mean()), abs=1e-5)


def test_sounds_side_by_side_are_refused():
    inputs = heard([12, 30])
    ids = inputs["input_ids"]
    order = torch.cat([torch.tensor([0, 1, 2]), torch.arange(3, 15), torch.arange(17, 47), torch.tensor([15, 16, 47])])
    inputs["input_ids"] = torch.cat([ids[:, order], ids[:, 48:]], 1)
    with pytest.raises(UnsupportedModelError, match="put a token between two sounds"):
        watched(qwen2_audio(), inputs)


@torch.no_grad()
def test_methods_for_tokens_of_any_kind_act_on_sound():
    """A uniform draw, before layer 0, keeps the share of every prompt's audio tokens and all text."""
    model, inputs = qwen2_audio(), heard([12, 30])
    with laconic.compress(model, "random_visual:keep=0.5") as session:
        model.generate(**inputs, max_new_tokens=3, do_sample=False)
    assert session.stats.achieved == pytest.approx(0.5)
    assert session.kept(0).shape[0] == inputs["input_ids"].shape[1] - 21 + 2


@torch.no_grad()
def test_the_neutral_session_is_the_model():
    model, inputs = qwen2_audio(), heard([12, 30])
    with laconic.compress(model, "random_visual:keep=1"):
        ours = model(**inputs).logits
    assert torch.allclose(ours, model(**inputs).logits, atol=1e-5)
