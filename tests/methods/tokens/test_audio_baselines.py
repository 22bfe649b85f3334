"""Pooling, the gate for silence, and the two baselines, on one sound and in prompts."""

import pytest
import torch
from helpers.audio_zoo import heard, qwen2_audio

import laconic
from laconic import BudgetError, UnsupportedModelError
from laconic.speech.clip import Clip


def clip(n=30, count=None, energy=None, must=None):
    x = torch.randn(n, 8, generator=torch.Generator().manual_seed(0))
    energy = torch.zeros(n) if energy is None else energy
    return Clip(x, 0.04, energy, count, torch.zeros(n, dtype=torch.bool) if must is None else must)


@pytest.mark.parametrize("stride", [1, 2, 4, 7, 30, 31])
def test_pooling_by_stride(stride):
    given = clip()
    found = laconic.AudioPool(stride=stride).reduce(given)
    assert len(found.kept) == -(-30 // stride)
    for number, (place, value) in enumerate(zip(found.kept.tolist(), found.values, strict=True)):
        window = given.tokens[number * stride : (number + 1) * stride]
        torch.testing.assert_close(value, window.mean(0))
        assert found.to[number * stride : (number + 1) * stride].tolist() == [place] * len(window)


@pytest.mark.parametrize("count", [1, 7, 15, 29, 30])
def test_pooling_to_a_number(count):
    found = laconic.AudioPool(keep=0.5).reduce(clip(count=count))
    sizes = torch.bincount(torch.searchsorted(found.kept, found.to))
    assert len(found.kept) == count and int(sizes.max() - sizes.min()) <= 1


def test_the_draw_depends_on_seed_and_number_alone():
    first = laconic.RandomAudio(keep=0.5).reduce(clip(count=15)).kept
    assert len(first) == 15 and first.tolist() == sorted(set(first.tolist()))
    assert torch.equal(first, laconic.RandomAudio(keep=0.5).reduce(clip(count=15)).kept)
    assert not torch.equal(first, laconic.RandomAudio(keep=0.5, seed=1).reduce(clip(count=15)).kept)


@pytest.mark.parametrize(("place", "first"), [("start", 0), ("middle", 9), ("end", 18)])
def test_a_crop_is_unbroken(place, first):
    found = laconic.CropAudio(keep=0.4, place=place).reduce(clip(count=12))
    assert found.kept.tolist() == list(range(first, first + 12))


def test_random_crops_reach_both_ends():
    firsts = {int(laconic.CropAudio(keep=0.9, seed=s).reduce(clip(count=27)).kept[0]) for s in range(40)}
    assert firsts == {0, 1, 2, 3}


def test_pauses_become_one_token():
    energy = torch.zeros(40)
    energy[10:20], energy[25:28] = -1.0, -1.0  # 0.4 s and 0.12 s, both 40 dB down
    found = laconic.SilenceGate().reduce(clip(40, energy=energy))
    assert found.kept.tolist() == [*range(11), *range(20, 40)]


@pytest.mark.parametrize("level", [0.0, -3.0])
def test_a_sound_without_pauses_keeps_everything(level):
    assert len(laconic.SilenceGate().reduce(clip(energy=torch.full((30,), level))).kept) == 30


def test_the_gate_with_a_budget_drops_the_quietest():
    energy = torch.randn(30, generator=torch.Generator().manual_seed(3))
    found = laconic.SilenceGate(keep=0.5).reduce(clip(count=15, energy=energy))
    assert found.kept.tolist() == sorted(energy.argsort(descending=True)[:15].tolist())


def test_protected_tokens_stay():
    must = torch.zeros(30, dtype=torch.bool)
    must[[3, 29]] = True
    energy = torch.zeros(30)
    energy[15:] = -1.0
    for method, count in ((laconic.RandomAudio(keep=0.1), 3), (laconic.SilenceGate(), None)):
        kept = method.reduce(clip(count=count, energy=energy, must=must)).kept.tolist()
        assert {3, 29} <= set(kept)


@pytest.mark.parametrize(
    "spec", ["audio_pool", "random_audio", "crop_audio", "silence_gate", "speechprune", "a_tome:at=output"]
)
@pytest.mark.parametrize("keep", [0.75, 0.5, 0.25, 0.1])
def test_in_prompts(spec, keep):
    """Two sounds in one prompt: each keeps its share, text stays whole, and the neutral setting is the model."""
    model, inputs = qwen2_audio(), heard([40, 20])
    text = inputs["input_ids"].shape[1] - 60
    with torch.no_grad(), laconic.compress(model, laconic.create_method(spec, keep=keep)) as session:
        model.generate(**inputs, max_new_tokens=3, do_sample=False)
    stats = session.stats
    assert stats.achieved == pytest.approx(keep, abs=0.02) and stats.asked == pytest.approx(keep)
    assert session.kept(0).shape[0] == round(60 * keep) + text + 2
    assert stats.kv_bytes < stats.kv_bytes_full
    with torch.no_grad(), laconic.compress(model, laconic.create_method(spec, keep=1.0)):
        ours = model(**inputs).logits
    with torch.no_grad():
        torch.testing.assert_close(ours, model(**inputs).logits, atol=1e-5, rtol=1e-5)


def test_protected_sound_cannot_be_pooled():
    model, inputs = qwen2_audio(), heard([40])
    with laconic.compress(model, "audio_pool:keep=0.5", protect=(3, 43)), pytest.raises(BudgetError, match="cannot"):
        model(**inputs)


def test_models_without_sound():
    from laconic import load

    model, _ = load("testbed/vlm")
    with pytest.raises(UnsupportedModelError, match="takes none in its prompt"):
        laconic.compress(model, "audio_pool")


@pytest.mark.parametrize(
    ("spec", "message"), [("crop_audio:place=left", "place='left'"), ("audio_pool:stride=0", "stride=0")]
)
def test_parameters(spec, message):
    with pytest.raises(ValueError, match=message):
        laconic.create_method(spec)
