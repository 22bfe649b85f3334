"""Image features that a method has pruned, as prompts of vLLM."""

import pytest
import torch
from helpers.image_files import noise

import laconic
from laconic.errors import ConflictError
from laconic.families.vision import vision_family_of
from laconic.prompts import media
from laconic.prompts.inputs import on_device
from laconic.vllm import image_prompt

QUESTION = "What does the white sign say?"


@pytest.fixture(scope="module")
def vlm_pair():
    return laconic.load("testbed/vlm")


def stream(model, found):
    """What vLLM runs: features in the place of the one placeholder, embeddings everywhere else."""
    ids, features = found["prompt_token_ids"], found["multi_modal_data"]["image"][0]
    at = ids.index(vision_family_of(model).token_id(model, "image"))
    table = model.get_input_embeddings().weight
    return torch.cat([table[ids[:at]], features, table[ids[at + 1 :]]])[None]


@pytest.mark.parametrize("spec", ["visionzip:keep=0.25", "prumerge:keep=0.3", "random_visual:keep=0.5,positions=renumber"])
def test_greedy_tokens_are_those_of_a_session(vlm_pair, spec):
    """Methods that drop tokens, and methods that merge them; the whole prompt, decoded by the stock model."""
    model, processor = vlm_pair
    image = noise(48, 48, 1)
    found = image_prompt(model, processor, image, QUESTION, spec)
    options = {"max_new_tokens": 8, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    given = stream(model, found)
    out = model.generate(inputs_embeds=given, attention_mask=torch.ones(given.shape[:2], dtype=torch.long), **options)
    prompt = media.build(processor, [image], "", QUESTION)
    ids = torch.tensor([prompt.ids])
    with laconic.compress(model, spec):
        expected = model.generate(ids, attention_mask=torch.ones_like(ids), **on_device(model, prompt.inputs), **options)
    assert out[0].tolist() == expected[0, ids.shape[1] :].tolist()
    visual = prompt.ids.count(vision_family_of(model).token_id(model, "image"))
    assert 0 < found["multi_modal_data"]["image"].shape[1] < visual


def test_the_number_of_features_follows_the_budget(vlm_pair):
    model, processor = vlm_pair
    counts = [
        image_prompt(model, processor, noise(48, 48, 1), QUESTION, f"visionzip:keep={keep}")["multi_modal_data"][
            "image"
        ].shape
        for keep in (0.25, 0.5)
    ]
    assert counts[0][1] * 2 == pytest.approx(counts[1][1], abs=2) and counts[0][2] == model.config.text_config.hidden_size


def test_the_model_is_as_it_was(vlm_pair):
    model, processor = vlm_pair
    image_prompt(model, processor, noise(48, 48, 1), QUESTION, "visionzip:keep=0.25")
    with laconic.compress(model):
        pass
    assert not [hook for module in model.modules() for hook in module._forward_pre_hooks.values() if hook.__name__ == "stop"]


def test_what_happens_inside_the_model_is_refused(vlm_pair):
    model, processor = vlm_pair
    with pytest.raises(ConflictError, match=r"before layer \d+, inside the model"):
        image_prompt(model, processor, noise(48, 48, 1), QUESTION, "fastv:keep=0.5")
    with pytest.raises(ConflictError, match="changes the embeddings of the text"):
        image_prompt(model, processor, noise(48, 48, 1), QUESTION, "llava_mini")
    with pytest.raises(ConflictError, match="does not act on visual tokens"):
        image_prompt(model, processor, noise(48, 48, 1), QUESTION, "keydiff:keep=0.5")
