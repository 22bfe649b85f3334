"""Tokens removed before the decoder, in every class, against the same model with those tokens masked as keys everywhere."""

import pytest
import torch
from helpers.vision_zoo import CASES

from laconic import UnsupportedModelError
from laconic.families.base import GENERIC
from laconic.families.vision import VisionWatch
from laconic.families.vision.shorten import shortened

VIDEOS = ["llava_onevision", "qwen2_vl", "qwen2_5_vl", "qwen3_vl"]


def half_of_the_images(mask):
    """Every other visual token is removed, as many in every row; padding and text stay: [B, m]."""
    count = int(mask.sum(1).min()) // 2
    rows = []
    for row in mask.tolist():
        gone = [token for token, visual in enumerate(row) if visual][::2][:count]
        rows.append([token for token in range(len(row)) if token not in gone])
    return torch.tensor(rows)


def logits_without(model, inputs, keep):
    """Last logits with all other tokens hidden from every query but their own."""
    batch, length = inputs["input_ids"].shape
    shown = torch.zeros(batch, length, dtype=torch.bool)
    for row in range(batch):
        for token in keep[row].tolist():
            shown[row, token] = bool(inputs["attention_mask"][row, token])
    allowed = torch.ones(length, length).tril().bool() & shown[:, None, None, :] | torch.eye(length).bool()
    layers = GENERIC.stack(model).layers
    hooks = [
        layer.register_forward_pre_hook(lambda m, a, k: (a, k | {"attention_mask": allowed}), with_kwargs=True)
        for layer in layers
    ]
    try:
        return model(**inputs).logits[:, -1]
    finally:
        for hook in hooks:
            hook.remove()


@pytest.mark.parametrize(("name", "video"), [*((name, 0) for name in CASES), *((name, 2) for name in VIDEOS)])
def test_equals_the_masked_model(vlm, name, video):
    case, model = CASES[name], vlm(name)
    inputs = case.inputs([[case.image(1)], [case.image(2, video=video), case.image(3, grid=(4, 4))]])
    with VisionWatch(model) as watch:
        full = model(**inputs).logits[:, -1]
        keep = half_of_the_images(watch.visual.mask)
    expected = logits_without(model, inputs, keep)
    hook = GENERIC.stack(model).register_forward_pre_hook(lambda m, a, k: (a, shortened(k, keep)), with_kwargs=True)
    try:
        output = model(**inputs)
    finally:
        hook.remove()
    assert output.past_key_values.get_seq_length() == output.logits.shape[1] == keep.shape[1] < inputs["input_ids"].shape[1]
    torch.testing.assert_close(output.logits[:, -1], expected, atol=1e-5, rtol=1e-4)
    assert (expected - full).abs().max() > 0.05, "nothing was at stake"


def test_arguments_by_hand():
    embeds, keep = torch.randn(2, 4, 3), torch.tensor([[0, 3], [1, 2]])
    visual = torch.tensor([[1, 0, 0, 1], [0, 1, 0, 1]]).bool()
    deep = torch.arange(4.0)[:, None]
    arguments = {"inputs_embeds": embeds, "visual_pos_masks": visual, "deepstack_visual_embeds": [deep], "use_cache": True}
    result = shortened(arguments, keep)
    assert torch.equal(result["inputs_embeds"], torch.stack([embeds[0, [0, 3]], embeds[1, [1, 2]]]))
    assert result["position_ids"].tolist() == [[0, 3], [1, 2]]
    assert result["visual_pos_masks"].tolist() == [[True, True], [True, False]]
    assert result["deepstack_visual_embeds"][0].flatten().tolist() == [0, 1, 2]
    assert result["use_cache"] is True and "attention_mask" not in result
    four = torch.arange(32).view(4, 2, 4)
    result = shortened(arguments | {"position_ids": four, "attention_mask": torch.ones(2, 4)}, keep)
    assert torch.equal(result["position_ids"], torch.stack([torch.stack([p[0, [0, 3]], p[1, [1, 2]]]) for p in four]))
    assert result["attention_mask"].shape == (2, 2)


def test_unsupported_calls_are_refused():
    keep = torch.tensor([[0]])
    for arguments in ({}, {"inputs_embeds": torch.zeros(1, 2, 3), "attention_mask": torch.zeros(1, 1, 2, 2)}):
        with pytest.raises(UnsupportedModelError, match="only where it is called with inputs_embeds and a 2-D"):
            shortened(arguments, keep)
