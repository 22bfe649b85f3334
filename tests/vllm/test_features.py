"""Pruned image features on a stock vLLM: the tokens that transformers decodes after the same vectors."""

import importlib.util
import json

import pytest
import torch
from helpers.image_files import noise
from helpers.vllm_tools import engine, expected, greedy, needs_vllm
from safetensors.torch import load_file, save_file

import laconic
from laconic.vllm import image_prompt

without = importlib.util.find_spec("torchvision") is None
needs_torchvision = pytest.mark.skipif(without, reason="vLLM's models that see import torchvision, see `make vllm`")
pytestmark = [pytest.mark.slow, needs_vllm, needs_torchvision]
QUESTION = "What does the white sign say?"


def test_pruned_image_features(tmp_path):
    """testbed/vlm, a LLaVA class: as many features as the method keeps, in a prompt with one placeholder."""
    model, processor = laconic.load("testbed/vlm")
    found = [
        image_prompt(model, processor, noise(48, 48, i), QUESTION, f"visionzip:keep={keep}")
        for i, keep in ((1, 0.25), (2, 0.5))
    ]
    image, table = model.config.image_token_id, model.get_input_embeddings().weight.detach()
    wanted = []
    for prompt in found:
        ids, at = prompt["prompt_token_ids"], prompt["prompt_token_ids"].index(image)
        whole = torch.cat([table[ids[:at]], prompt["multi_modal_data"]["image"][0], table[ids[at + 1 :]]])
        wanted.append(expected(model, inputs_embeds=whole[None]))
    folder = renamed(model, processor, tmp_path)
    llm = engine(folder, skip_tokenizer_init=False, enable_mm_embeds=True, limit_mm_per_prompt={"image": 1})
    assert [greedy(llm, [prompt])[0] for prompt in found] == wanted  # vLLM batches images of equally many features only
    assert greedy(llm, [found[0], found[0]]) == [wanted[0], wanted[0]]


def renamed(model, processor, folder):
    """A checkpoint with the names of the vision tower that vLLM knows; transformers has left one level of them out."""
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    tensors = load_file(folder / "model.safetensors")
    tower = "vision_tower."
    names = {
        name: name.replace(tower, f"{tower}vision_model.") if tower in name and "vision_model" not in name else name
        for name in tensors
    }
    save_file({names[name]: x for name, x in tensors.items()}, folder / "model.safetensors", {"format": "pt"})
    assert json.loads((folder / "config.json").read_text())["model_type"] == "llava"
    return folder
