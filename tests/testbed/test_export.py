"""What is shipped loads as it is, holds the checkpoint's weights in bfloat16 and nothing of the training."""

import json

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, AutoProcessor, AutoTokenizer

import laconic
from laconic.testbed import audio_model, video_model
from laconic.testbed.any_resolution import any_resolution
from laconic.testbed.export import LOADING, export
from laconic.testbed.train_vlm import Trainer, parser
from laconic.testbed.vlm_model import build_model


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    Trainer(parser().parse_args(["--out", str(folder)])).save()
    return folder


def test_the_shipped_folder_is_the_checkpoint_in_bfloat16(checkpoint, tmp_path):
    (tmp_path / "README.md").write_text("card")
    export(checkpoint, tmp_path)
    shipped = AutoModelForImageTextToText.from_pretrained(tmp_path)
    trained = AutoModelForImageTextToText.from_pretrained(checkpoint).state_dict()
    assert shipped.dtype == torch.bfloat16 and shipped.generation_config.max_new_tokens
    assert all(torch.equal(tensor, trained[name].bfloat16()) for name, tensor in shipped.state_dict().items())
    assert AutoProcessor.from_pretrained(tmp_path).tokenizer.decode([2]) == "</s>"
    assert (tmp_path / "README.md").read_text() == "card"
    assert not {path.name for path in tmp_path.iterdir()} & {"heads.safetensors", "optimizer.safetensors", "trainer.json"}
    assert not set(LOADING) & set(json.loads((tmp_path / "tokenizer_config.json").read_text()))
    assert (tmp_path / "model.safetensors").stat().st_size < 25e6


def test_the_any_resolution_form_is_loaded_by_its_own_class(tmp_path):
    any_resolution(build_model()).save_pretrained(tmp_path)
    assert type(AutoModelForImageTextToText.from_pretrained(tmp_path)).__name__ == "LlavaNextForConditionalGeneration"


def test_a_model_that_hears_ships_with_its_processor(tmp_path):
    audio_model.build_model().save_pretrained(tmp_path / "run")
    audio_model.build_processor(audio_model.build_tokenizer()).save_pretrained(tmp_path / "run")
    export(tmp_path / "run", tmp_path / "out")
    shipped, processor = laconic.load(str(tmp_path / "out"))
    assert shipped.dtype == torch.bfloat16 and type(shipped).__name__ == "Qwen2AudioForConditionalGeneration"
    assert shipped.generation_config.max_new_tokens == 14
    assert shipped.config.audio_config.frame_seconds == processor.feature_extractor.hop_length / 16_000 == 0.02
    assert (tmp_path / "out" / "model.safetensors").stat().st_size < 8e6


def test_a_model_of_videos_ships_with_its_processor(tmp_path):
    tokenizer = video_model.build_tokenizer()
    video_model.empty_model(tokenizer).save_pretrained(tmp_path / "run")
    video_model.build_processor(tokenizer).save_pretrained(tmp_path / "run")
    export(tmp_path / "run", tmp_path / "out")
    shipped, processor = laconic.load(str(tmp_path / "out"))
    assert shipped.dtype == torch.bfloat16 and type(shipped).__name__ == "LlavaOnevisionForConditionalGeneration"
    assert processor.video_processor.size["height"] == 48 and "<video>" in processor.chat_template
    assert (tmp_path / "out" / "model.safetensors").stat().st_size < 16e6


def test_a_model_of_text_ships_with_its_tokenizer(make_llama, tmp_path):
    from laconic.shipped import model_path

    model = make_llama(layers=1)
    model.save_pretrained(tmp_path / "run")
    AutoTokenizer.from_pretrained(model_path("testbed/lm")).save_pretrained(tmp_path / "run")
    export(tmp_path / "run", tmp_path / "out")
    shipped = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert shipped.dtype == torch.bfloat16 and shipped.generation_config.max_new_tokens == 64
    assert all(torch.equal(x, model.state_dict()[name].bfloat16()) for name, x in shipped.state_dict().items())
    assert AutoTokenizer.from_pretrained(tmp_path / "out").decode([2]) == "</s>"
