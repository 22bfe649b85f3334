"""Which adapter a model gets, what the adapters know, and how short they are."""

from pathlib import Path

import pytest
import torch
from helpers.vision_zoo import CASES, LLAVA, SIGLIP
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    LlavaConfig,
    LlavaForConditionalGeneration,
)

import laconic.families.vision as vision
from laconic import UnsupportedModelError
from laconic.families.vision import supported_vision_families, vision_family_of

FAMILY = {
    "llava": "LLaVA-1.5",
    "llava-full": "LLaVA-1.5",
    "llava-siglip": "LLaVA-1.5",
    "llava_next": "LLaVA-NeXT",
    "llava_onevision": "LLaVA-OneVision",
    "internvl": "InternVL",
    "qwen2_vl": "Qwen2-VL",
    "qwen2_5_vl": "Qwen2.5-VL",
    "qwen3_vl": "Qwen3-VL",
}


@pytest.mark.parametrize("name", CASES)
def test_families_are_found(vlm, name):
    model = vlm(name)
    family = vision_family_of(model)
    assert family.name == FAMILY[name]
    assert vision_family_of(model.base_model) is family
    assert family.has_cls(model) == (name in ("llava", "llava-full", "llava_next", "internvl"))
    assert family.omits_patch(model) == (name == "llava-siglip")
    assert family.deepstack(model) == (2 if name == "qwen3_vl" else 0)
    tower = family.tower(model)
    assert isinstance(tower, torch.nn.Module) and "Vision" in type(tower).__name__


def test_families_are_listed():
    names = [family.name for family in supported_vision_families()]
    assert names == sorted(set(FAMILY.values()))


def test_adapters_are_short():
    shared = {"__init__", "base", "spans", "encoder", "anyres", "visual", "watch", "shorten", "clock", "frames", "merged"}
    files = [path for path in Path(vision.__file__).parent.glob("*.py") if path.stem not in shared]
    assert len(files) == len(set(FAMILY.values()))
    for path in files:
        assert len(path.read_text().splitlines()) < 100, path.name


@pytest.mark.parametrize("name", CASES)
def test_the_feature_layer_gives_the_features(vlm, name):
    """Its output, caught by a hook, is what the projector (or merger) reads."""
    case, model = CASES[name], vlm(name)
    family = vision_family_of(model)
    layers = model.base_model.visual.blocks if name.startswith("qwen") else model.base_model.vision_tower.encoder
    layers = layers if name.startswith("qwen") else getattr(layers, "layers", None) or layers.layer
    outputs = []
    handle = layers[family.feature_layer(model)].register_forward_hook(lambda m, a, out: outputs.append(out))
    with vision.VisionWatch(model) as watch:
        model(**case.inputs([[case.image(1)]]))
        features = family.patch_features(model, watch.visual.calls["image"])
    handle.remove()
    out = outputs[0][0] if isinstance(outputs[0], tuple) else outputs[0]
    if out.ndim == 3:
        out = out[:, -16:].flatten(0, 1)
    if name == "internvl":  # its last layer is followed by a norm
        out = model.base_model.vision_tower.layernorm(out)
    torch.testing.assert_close(features, out)


def test_joined_feature_layers_are_an_error():
    config = LlavaConfig(**LLAVA | {"vision_feature_layer": [-2, -1]})
    model = LlavaForConditionalGeneration(config)
    with pytest.raises(UnsupportedModelError, match=r"joins features of the layers \[-2, -1\]"):
        vision_family_of(model).feature_layer(model)


def test_positive_feature_layers_count_the_embeddings():
    model = LlavaForConditionalGeneration(LlavaConfig(**LLAVA | {"vision_feature_layer": 1}))
    assert vision_family_of(model).feature_layer(model) == 0


def test_other_encoders_in_a_known_class():
    """The class is LLaVA, but the encoder decides: SigLIP has no CLS, Pixtral is not supported."""
    siglip = LLAVA | {"vision_config": SIGLIP, "vision_feature_select_strategy": "full"}
    model = LlavaForConditionalGeneration(LlavaConfig(**siglip))
    assert not vision_family_of(model).has_cls(model)
    pixtral = {
        "model_type": "pixtral",
        "hidden_size": 16,
        "num_attention_heads": 2,
        "num_hidden_layers": 1,
        "image_size": 32,
    }
    model = LlavaForConditionalGeneration(LlavaConfig(**LLAVA | {"vision_config": pixtral | {"intermediate_size": 16}}))
    with pytest.raises(UnsupportedModelError, match="does not know the vision encoder 'pixtral'"):
        vision_family_of(model)


def test_models_without_images_are_refused(llama):
    with pytest.raises(UnsupportedModelError, match="where LlamaForCausalLM has its visual tokens; supported families: Int"):
        vision_family_of(llama)
    with pytest.raises(UnsupportedModelError, match="where Linear has"):
        vision_family_of(torch.nn.Linear(1, 1))
    assert isinstance(llama, LlamaForCausalLM) and isinstance(llama.config, LlamaConfig)
