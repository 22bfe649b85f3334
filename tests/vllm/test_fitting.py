"""Which methods vLLM can take: found by trying."""

import importlib

import pytest

from laconic.vllm.fitting import ways


@pytest.fixture(scope="module")
def found():
    return ways(*importlib.import_module("laconic.cli.doctor")._tiny())


def test_each_way_has_its_methods(found):
    assert "bm25" in found["shortened text"]
    assert "icae" in found["prompt_embeds"] and "gist" not in found["prompt_embeds"]
    assert {"keydiff", "snapkv", "gist", "cartridge"} <= set(found["context"])
    assert "visionzip" in found["image features"]


def test_what_vllm_cannot_hold_is_left_out(found):
    named = {name for names in found.values() for name in names}
    assert not named & {"adakv", "kvzip", "kivi", "gear", "fastv", "audio_pool", "wanda", "llava_mini", "voco_llama"}
