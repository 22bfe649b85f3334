"""Embeddings with images in them: the decoder gives the same from them, and models that say more are refused."""

import numpy as np
import pytest
import torch
from helpers.vision_zoo import CASES

from laconic.errors import UnsupportedModelError
from laconic.families.vision.merged import merged


@pytest.mark.parametrize("name", ["llava", "llava_next", "internvl"])
def test_the_decoder_gives_the_same_from_them(vlm, name):
    case, model = CASES[name], vlm(name)
    inputs = case.inputs([[case.image(1)]])
    found = merged(model, inputs)
    assert found.shape[:2] == inputs["input_ids"].shape and not found.requires_grad
    with torch.no_grad():
        torch.testing.assert_close(model(inputs_embeds=found).logits, model(**inputs).logits, atol=1e-5, rtol=1e-4)
    text = inputs["input_ids"] != model.config.image_token_id
    torch.testing.assert_close(found[text], model.get_input_embeddings()(inputs["input_ids"][text]))
    assert not any(module._forward_pre_hooks for module in model.modules())


@pytest.mark.parametrize("name", ["qwen2_vl", "qwen3_vl"])
def test_what_embeddings_do_not_hold_is_refused(vlm, name):
    case = CASES[name]
    with pytest.raises(UnsupportedModelError, match="M-RoPE or DeepStack"):
        merged(vlm(name), case.inputs([[case.image(1)]]))


def test_an_error_of_the_model_is_not_hidden(vlm):
    inputs = CASES["llava"].inputs([[CASES["llava"].image(1)]])
    with pytest.raises((ValueError, IndexError, RuntimeError)):
        merged(vlm("llava"), {**inputs, "pixel_values": torch.from_numpy(np.zeros((2, 3, 32, 32), np.float32))})
