"""Top-K: what receives the most attention stays, at a few layers, in any order."""

import pytest
import torch
from helpers.audio_zoo import whisper

import laconic
from laconic.speech.clip import LayerView, Shorter


def window(sound):
    x = torch.randn(1, 8, 200, generator=torch.Generator().manual_seed(1))
    x[:, :, 2 * sound :] = -9.0
    return x


def test_the_most_attended_stay():
    generator = torch.Generator().manual_seed(0)
    q, k = torch.randn(2, 12, 4, generator=generator), torch.randn(2, 12, 4, generator=generator)
    received = torch.zeros(12)
    for h in range(2):
        for i in range(12):
            received += torch.stack([(q[h, i] * k[h, j]).sum() * 0.5 for j in range(12)]).softmax(0)
    found = laconic.TopKAudio().step(LayerView(0, 1, q, k, 0.5, 5))
    assert (found.to >= 0).nonzero()[:, 0].tolist() == sorted(received.argsort(descending=True)[:5].tolist())
    assert found.to[found.to >= 0].tolist() == [0, 1, 2, 3, 4] and found.count == 5


@pytest.mark.parametrize(("depth", "layers"), [(12, [3, 6, 9]), (4, [1, 2, 3]), (2, [0, 1])])
def test_layers_and_counts(depth, layers):
    plan = laconic.TopKAudio(keep=0.3).plan(100, 30, depth)
    assert plan[-1] == 30
    changed = [i for i, (a, b) in enumerate(zip([100, *plan], plan, strict=False)) if a != b]
    assert changed == layers


def test_chosen_layers():
    assert laconic.TopKAudio(layers=2).plan(100, 30, 4) == [100, 100, 30, 30]
    with pytest.raises(ValueError, match=r"layers 0\.\.3"):
        laconic.TopKAudio(layers=(4,)).plan(100, 30, 4)
    with pytest.raises(ValueError, match="must be different layers"):
        laconic.TopKAudio(layers=(1, 1))


@torch.no_grad()
def test_the_order_of_what_stays_means_nothing(monkeypatch):
    """Kept by score, as published, or in time: the decoder reads the same."""
    model, x, ids = whisper(encoder_layers=4), window(60), torch.tensor([[1, 5, 7]])
    with laconic.compress_encoder(model, "topk_audio:keep=0.4"):
        in_time = model(input_features=x, decoder_input_ids=ids).logits
    step = laconic.TopKAudio.step

    def shuffled(self, view):
        found = step(self, view)
        order = torch.randperm(found.count, generator=torch.Generator().manual_seed(view.layer))
        return Shorter(torch.where(found.to >= 0, order[found.to.clamp(min=0)], -1))

    monkeypatch.setattr(laconic.TopKAudio, "step", shuffled)
    with laconic.compress_encoder(model, "topk_audio:keep=0.4") as session:
        by_score = model(input_features=x, decoder_input_ids=ids).logits
    assert session.windows[0].to.tolist() != sorted(session.windows[0].to.tolist())
    torch.testing.assert_close(by_score, in_time, atol=1e-5, rtol=1e-5)
