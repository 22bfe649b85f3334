"""Attention of the encoders from hooked queries and keys, against what the Hugging Face encoders compute themselves."""

import pytest
import torch
from helpers.vision_zoo import CASES
from torch import nn
from transformers import AttentionInterface

from laconic import UnsupportedModelError
from laconic.families.vision import encoder
from laconic.families.vision.encoder import EncoderAttention, catch, layer_number, layers_of, tower_of

APART = [name for name in CASES if not name.startswith("qwen")]
WITH_CLS = ["llava", "llava-full", "llava_next", "internvl"]


def rows_of(case):
    return [[case.image(1)], [case.image(2, size=(30, 90), tiles=3, grid=(8, 4)), case.image(3, grid=(4, 10))]]


@pytest.fixture
def weights(vlm):
    """`weights(name, inputs)`: attention of every encoder layer, [H, N, N] with zeros between images, patches and CLS.

    Weights come from the model's own attention calls, rotary phases applied by the model, through a registered function.
    """

    def run(name, inputs):
        calls: dict[int, list[torch.Tensor]] = {}

        def probe(module, query, key, value, attention_mask, scaling, **_):
            assert attention_mask is None
            attention = (query.float() @ key.float().mT * scaling).softmax(-1)
            calls.setdefault(id(module), []).append(attention)
            return (attention @ value).transpose(1, 2), attention

        AttentionInterface.register("laconic_vision_probe", probe)
        model = vlm(name)
        tower = model.base_model.visual if name.startswith("qwen") else model.base_model.vision_tower
        before = tower.config._attn_implementation
        tower.set_attn_implementation("laconic_vision_probe")
        try:
            model(**inputs)
        finally:
            tower.set_attn_implementation(before)
            AttentionInterface._global_mapping.pop("laconic_vision_probe", None)
        modules = [id(layer.get_submodule(tower_of(tower).attention)) for layer in layers_of(tower)]
        return [[image for batch in calls[key] for image in batch] for key in modules]

    return run


def whole(images, heads):
    """Block diagonal [H, N, N] of the images' attention, by hand."""
    n = sum(p.shape[-1] for p in images)
    full = torch.zeros(heads, n, n)
    at = 0
    for image in images:
        full[:, at : at + image.shape[-1], at : at + image.shape[-1]] = image
        at += image.shape[-1]
    return full


@pytest.mark.parametrize("layer", [0, 1, 2])
@pytest.mark.parametrize("name", CASES)
def test_received_attention_is_the_mean_of_the_models_columns(vlm, seen, weights, name, layer, monkeypatch):
    monkeypatch.setattr(encoder, "BLOCK", 5)
    case, model = CASES[name], vlm(name)
    inputs = case.inputs(rows_of(case))
    visual = seen(model, inputs, layers=(layer,))
    images = weights(name, inputs)[layer]
    columns = []
    for image in images:  # one per view; windows of Qwen2.5-VL are separate segments
        for token in range(1 if visual.has_cls else 0, image.shape[-1]):
            columns.append(torch.stack([image[:, q, token] for q in range(image.shape[-1])]).mean(0))
    flat = torch.stack(columns, 1)
    for span in visual.spans:
        ours = visual.received_attention(span, layer)
        assert ours.shape == (2, *span.patches.shape)
        torch.testing.assert_close(ours, flat[:, span.patches], atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("layer", [0, 2, -1])
@pytest.mark.parametrize("name", WITH_CLS)
def test_cls_attention_is_that_of_the_eager_encoder(vlm, seen, name, layer):
    case, model, twin = CASES[name], vlm(name), vlm(name, "eager")
    inputs = case.inputs(rows_of(case))
    visual = seen(model, inputs, layers=(layer,))
    pixels = inputs["pixel_values"]
    if pixels.ndim == 5:
        images = [image for row in rows_of(case) for image in row]
        pixels = torch.cat([views[: len(p.views)] for views, p in zip(pixels, images, strict=True)])
    attention = twin.base_model.vision_tower(pixels, output_attentions=True).attentions[layer]
    rows = attention[:, :, 0, 1:].transpose(0, 1).flatten(1)  # what CLS pays to patches, view after view
    for span in visual.spans:
        ours = visual.cls_attention(span, layer)
        torch.testing.assert_close(ours, rows[:, span.patches], atol=1e-5, rtol=0)
        logits = visual.cls_attention(span, layer, logits=True)
        shift = (ours.log() - logits).flatten(1)  # one constant per head and view: the softmax' denominator
        assert (shift - shift[:, :1]).abs().max() < 1e-4
    assert (rows - rows.mean()).abs().max() > 0.02, "attention is not uniform"


@pytest.mark.parametrize("name", CASES)
def test_keys_give_the_models_attention(vlm, seen, weights, name):
    """EncoderAttention in full: the softmax of the captured queries and keys is the model's attention, image by image."""
    case, model = CASES[name], vlm(name)
    inputs = case.inputs(rows_of(case))
    visual = seen(model, inputs, layers=(2,))
    heads = visual.calls["image"].heads[2]
    expected = whole(weights(name, inputs)[2], 2)
    logits = heads.queries.float() @ heads.keys.float().mT * heads.scale
    for start, stop in heads.stretches():
        ours = logits[:, start:stop, start:stop].softmax(-1)
        torch.testing.assert_close(ours, expected[:, start:stop, start:stop], atol=1e-5, rtol=0)
    patches = heads.without_cls(heads.keys)
    for span in visual.spans:
        assert torch.equal(visual.keys(span, 2), patches[:, span.patches])


@pytest.mark.parametrize("name", [name for name in CASES if name not in WITH_CLS])
def test_no_cls_is_an_error(vlm, seen, name):
    case = CASES[name]
    visual = seen(vlm(name), case.inputs([[case.image(1)]]), layers=(-1,))
    assert not visual.has_cls
    with pytest.raises(UnsupportedModelError, match=r"has no CLS token.*use received_attention"):
        visual.cls_attention(visual.spans[0])


def test_windows_attend_within_themselves(vlm, seen):
    """Qwen2.5-VL: windows of 4x4 patches in the first layers, whole images in the last."""
    case = CASES["qwen2_5_vl"]
    visual = seen(vlm("qwen2_5_vl"), case.inputs([[case.image(1)]]), layers=(0, 2))
    heads = visual.calls["image"].heads
    assert [b - a for a, b in heads[0].stretches()] == [16, 16, 8, 8]
    assert [b - a for a, b in heads[2].stretches()] == [48]


def test_heads_by_hand():
    generator = torch.Generator().manual_seed(0)
    q, k = (torch.randn(2, 7, 4, generator=generator) for _ in range(2))
    heads = EncoderAttention(q, k, [0, 3, 7], 0.5, cls=True)
    cls, received = heads.cls_attention(False), heads.received_attention()
    assert cls.shape == received.shape == (2, 5)
    for h in range(2):
        out = 0
        for start, stop in ((0, 3), (3, 7)):
            weight = [[float((q[h, i] @ k[h, j] * 0.5).exp()) for j in range(start, stop)] for i in range(start, stop)]
            weight = [[x / sum(row) for x in row] for row in weight]
            for j in range(1, stop - start):
                assert cls[h, out] == pytest.approx(weight[0][j], abs=1e-6)
                assert received[h, out] == pytest.approx(sum(row[j] for row in weight) / len(weight), abs=1e-6)
                out += 1


def test_layers_by_number(vlm):
    tower = vlm("llava").model.vision_tower
    assert [layer_number(tower, layer) for layer in (0, 2, -1, -3)] == [0, 2, 2, 0]
    for layer in (3, -4):
        with pytest.raises(ValueError, match=rf"layer={layer}: this vision encoder has layers 0..2 \(or -3..-1\)"):
            layer_number(tower, layer)


def test_unknown_encoders_are_refused():
    with pytest.raises(UnsupportedModelError, match="does not know the vision encoder 'Linear'; known encoders: clip"):
        tower_of(nn.Linear(2, 2))


@pytest.mark.parametrize("name", ["llava", "internvl", "qwen2_vl"])
def test_hooks_are_removed(vlm, name):
    model = vlm(name)
    tower = model.base_model.visual if name == "qwen2_vl" else model.base_model.vision_tower
    found = []
    inputs = CASES[name].inputs([[CASES[name].image(1)]])
    model(**inputs)  # transformers leaves its own hooks on encoders that return hidden states
    before = [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in tower.modules()]
    handles = catch(tower, 1, found.append)
    assert before != [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in tower.modules()]
    model(**inputs)
    for handle in handles:
        handle.remove()
    model(**inputs)
    assert len(found) == 1
    assert before == [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in tower.modules()]
