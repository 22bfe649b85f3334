"""Sessions on vision language models: dropping entries of images and text equals masking them in the stock model."""

import pytest
import torch
from helpers.masked_reference import hidden_from, reference_logits
from helpers.vision_zoo import CASES, IMAGE, VIDEO

import laconic
from laconic import FastKV, SnapKV, UnsupportedModelError
from laconic.families.base import GENERIC
from laconic.families.vision import vision_family_of

GENERATE = {"max_new_tokens": 4, "do_sample": False, "output_logits": True, "return_dict_in_generate": True} | {
    "suppress_tokens": [IMAGE, VIDEO]  # a placeholder in the answer would have no image
}
METHODS = {
    "snapkv": lambda: SnapKV(keep=0.3, window=4),
    "fastkv": lambda: FastKV(keep=0.3, tsp_rate=0.5, tsp_layer=0, window=4),
}


def longer(inputs, sequences):
    """The same images with the answer after the prompt."""
    new = sequences.shape[1] - inputs["input_ids"].shape[1]
    changed = {"input_ids": sequences, "attention_mask": torch.ones_like(sequences)}
    if "mm_token_type_ids" in inputs:
        changed["mm_token_type_ids"] = torch.nn.functional.pad(inputs["mm_token_type_ids"], (0, new))
    return inputs | changed


@pytest.mark.filterwarnings("ignore:fastkv was asked")
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", CASES)
def test_eviction_equals_masked_reference(vlm, name, method):
    model, case = vlm(name, "eager"), CASES[name]
    inputs = case.inputs([[case.image(0)]])
    n = inputs["input_ids"].shape[1]
    if method == "fastkv" and vision_family_of(model).deepstack(model) > 1:
        with pytest.raises(UnsupportedModelError, match="adds visual features"):
            laconic.compress(model, METHODS[method]())
        return
    with laconic.compress(model, METHODS[method]()) as session:
        ours = model.generate(**inputs, **GENERATE)
        heads = GENERIC.stack(model).config.num_key_value_heads
        hidden = hidden_from(session, n, ours.sequences.shape[1], heads)
    after = slice(n - 1, n - 1 + len(ours.logits))
    whole = longer(inputs, ours.sequences)
    expected = reference_logits(model, whole, hidden)[0, after]
    torch.testing.assert_close(torch.cat(ours.logits), expected, atol=1e-4, rtol=1e-4)
    assert (expected - reference_logits(model, whole, {})[0, after]).abs().max() > 1e-3, "nothing was at stake"
