"""Everything that changes what a context keeps changes its key, and nothing else does."""

from dataclasses import replace

import pytest
import torch
from helpers.bench_tools import tiny

import laconic
from laconic.artifact import Artifact
from laconic.engine.context_key import context_key, weights_hash
from laconic.engine.engine import Engine, Request
from laconic.errors import StoreError

REQUEST = Request(context="The code for falcon is 4815263.", methods=[laconic.SnapKV(keep=0.5)])


@pytest.fixture
def engine():
    return Engine(*tiny())


def key(engine, request=REQUEST, **changes):
    request = replace(request, **changes)
    prompt = engine.prompt(replace(request, question=request.question or "?"))
    return context_key(engine.model, engine.tokenizer, request, prompt)


def test_a_key_is_the_same_for_the_same_context(engine):
    same = key(engine)
    assert same == key(engine) == key(Engine(*tiny()))
    for changes in (
        {"question": "What is it?"}, {"max_new_tokens": 3}, {"sample": True}, {"seed": 1}, {"options": {"top_p": 0.5}},
    ):  # fmt: skip
        assert key(engine, **changes) == same


def test_every_part_of_the_reading_is_in_the_key(engine):
    snapkv = laconic.SnapKV
    readings = [
        {}, {"context": "The code for falcon is 4815264."}, {"system": "Be short."}, {"chunk": 8}, {"protect": "falcon"},
        {"protect": (0, 3)}, {"methods": []}, {"methods": [snapkv(keep=0.25)]}, {"methods": [snapkv(tokens=8)]},
        {"methods": [snapkv(bytes=4096)]}, {"methods": [snapkv(keep=0.5, window=4)]},
        {"methods": [snapkv(keep=0.5, protect="code")]}, {"methods": [laconic.KNorm(keep=0.5)]},
        {"methods": [snapkv(keep=0.5), laconic.KIVI()]}, {"methods": [snapkv(keep=0.5), laconic.KIVI(bits=4)]},
    ]  # fmt: skip
    keys = [key(engine, **changes) for changes in readings]
    assert len(set(keys)) == len(keys)


def test_every_weight_is_in_the_key(engine):
    keys = {key(engine)}
    weight = engine.model.model.layers[0].mlp.up_proj.weight
    for at in (0, 1, -1):
        with torch.no_grad():
            weight.view(-1)[at] += 1e-3
        keys.add(key(engine))
    assert len(keys) == 4
    engine.model.bfloat16()
    assert key(engine) not in keys


def test_weights_are_hashed_once(engine, monkeypatch):
    from laconic.engine import context_key as module

    hashed = []
    update = module._update
    monkeypatch.setattr(module, "_update", lambda digest, name, x: hashed.append(name) or update(digest, name, x))
    first = weights_hash(engine.model)
    assert len(hashed) == len(list(engine.model.parameters())) and weights_hash(engine.model) == first
    assert len(hashed) == len(set(hashed))


def test_settings_template_and_vocabulary_are_in_the_key(engine):
    keys = {key(engine)}
    engine.model.config.rope_parameters["rope_theta"] *= 2
    keys.add(key(engine))
    engine.tokenizer.chat_template += " "
    keys.add(key(engine))
    engine.tokenizer.add_tokens(["<new>"])
    keys.add(key(engine))
    assert len(keys) == 4


def test_the_content_of_an_artifact_is_in_the_key(engine, tmp_path):
    file = tmp_path / "artifact.safetensors"
    keys = set()
    for heads in ([[0, 0]], [[0, 1]]):
        Artifact.of("razorattention", "measured", engine.model, {"heads": heads}).save(file)
        keys.add(key(engine, methods=[laconic.RazorAttention(artifact=str(file))]))
    assert len(keys) == 2
    with pytest.raises(laconic.ArtifactError, match="cannot be read"):
        key(engine, methods=[laconic.RazorAttention(artifact=str(tmp_path / "none.safetensors"))])


def test_what_has_no_bytes_cannot_be_part_of_a_key(engine):
    prompt = replace(engine.prompt(replace(REQUEST, question="?")), inputs={"thing": object()})
    with pytest.raises(StoreError, match="brings thing, a object"):
        context_key(engine.model, engine.tokenizer, REQUEST, prompt)
