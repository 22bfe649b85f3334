"""Memories by themselves: made of a text, put into a prompt, saved and loaded."""

import json

import pytest
import torch
from helpers.memory_tools import artifact_of, method
from safetensors.torch import load_file, save_file

import laconic
from laconic.errors import SavedContextError, SessionError
from laconic.memory.memory import KEY, Memory
from laconic.methods.memory.compllm.network import ConceptEmbeddings
from laconic.prompts.text import PromptError

TEXT = "The code for falcon is 4815263. " * 4


@pytest.fixture(scope="module")
def loaded():
    model, tokenizer = laconic.load("testbed/lm")
    return model.float(), tokenizer


@pytest.fixture(scope="module")
def text(loaded, tmp_path_factory):
    torch.manual_seed(0)
    network = ConceptEmbeddings(loaded[0], 8, 2)
    return artifact_of("compllm", loaded[0], network, tmp_path_factory.mktemp("a") / "compllm.safetensors", marker=2)


@pytest.fixture(scope="module")
def memory(loaded, text):
    return Memory.of(*loaded, TEXT, method(text))


def test_editing_one_token_changes_only_its_segment(loaded, text):
    model, tokenizer = loaded
    ids = tokenizer.encode(TEXT, add_special_tokens=False)
    other = [*ids[:10], ids[10] + 1, *ids[11:]]
    one, two = (Memory.of(model, tokenizer, given, method(text)).soft for given in (ids, other))
    changed = (one != two).any(-1).nonzero()[:, 0].tolist()
    assert changed and set(changed) <= {4, 5, 6, 7}  # the second segment of 8 tokens, in 4 slots


def test_generate_takes_a_memory_with_and_without_a_session(loaded, memory):
    model, tokenizer = loaded
    inputs = memory.inputs(model, tokenizer, "What is the code?")
    alone = model.generate(**inputs, max_new_tokens=4, do_sample=False)
    with laconic.compress(model) as session:
        assert torch.equal(model.generate(**inputs, max_new_tokens=4, do_sample=False), alone)
    assert session.stats.tokens_in == inputs["inputs_embeds"].shape[1]
    with laconic.compress(model, laconic.Random(keep=0.3)) as session:
        model.generate(**inputs, max_new_tokens=4, do_sample=False)
    assert session.stats.achieved == pytest.approx(0.3, abs=0.05)


def test_a_memory_survives_its_file(loaded, memory, tmp_path):
    memory.save(tmp_path / "m.safetensors")
    again = Memory.load(tmp_path / "m.safetensors", *loaded)
    assert torch.equal(again.soft, memory.soft) and again.ids == memory.ids and again.facts == memory.facts
    assert str(again.method) == str(memory.method) and (again.seconds, again.flops) == (0, 0) and memory.flops > 0


def test_nothing_to_remember(loaded, text):
    for given in ("", []):
        with pytest.raises(PromptError, match="nothing to remember"):
            Memory.of(*loaded, given, method(text))
    assert len(Memory.of(*loaded, [7], method(text)).soft) == 1
    with pytest.raises(PromptError, match="lone surrogate"):
        Memory.of(*loaded, "\ud800", method(text))


def test_a_memory_is_not_made_inside_a_session_or_by_a_cache_method(loaded, text):
    with laconic.compress(loaded[0]), pytest.raises(SessionError, match="outside"):
        Memory.of(*loaded, TEXT, method(text))
    with pytest.raises(TypeError, match="site memory"):
        Memory.of(*loaded, TEXT, "random:keep=0.5")


def test_files_that_do_not_belong_are_refused(loaded, memory, make_llama, tmp_path):
    path, (model, tokenizer) = tmp_path / "m.safetensors", loaded
    memory.save(path)
    with pytest.raises(SavedContextError, match="other weights"):
        Memory.load(path, make_llama(), tokenizer)
    other = laconic.load("testbed/vlm")[1].tokenizer
    with pytest.raises(SavedContextError, match="another tokenizer"):
        Memory.load(path, model, other)
    with pytest.raises(SavedContextError, match="another tokenizer"):
        memory.inputs(model, other, "What?")
    with pytest.raises(SavedContextError, match="does not exist"):
        Memory.load(tmp_path / "none", model, tokenizer)
    save_file({"x": torch.ones(1)}, path)
    with pytest.raises(SavedContextError, match="not a memory"):
        Memory.load(path, model, tokenizer)


def test_another_version_of_the_method_is_refused(loaded, memory, tmp_path, monkeypatch):
    memory.save(tmp_path / "m.safetensors")
    monkeypatch.setattr(laconic.CompLLM, "version", 2)
    with pytest.raises(SavedContextError, match="another version of compllm"):
        Memory.load(tmp_path / "m.safetensors", *loaded)


def test_an_altered_or_truncated_file_gives_a_clean_error(loaded, memory, tmp_path):
    path = tmp_path / "m.safetensors"
    memory.save(path)
    whole = path.read_bytes()
    for at in range(0, len(whole), max(1, len(whole) // 60)):
        path.write_bytes(whole[:at])
        with pytest.raises(SavedContextError):
            Memory.load(path, *loaded)
        changed = bytearray(whole)
        changed[at] ^= 1
        path.write_bytes(changed)
        with pytest.raises(SavedContextError):
            Memory.load(path, *loaded)


def test_the_checksum_covers_facts_and_numbers(loaded, memory, tmp_path):
    path = tmp_path / "m.safetensors"
    memory.save(path)
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        header = dict(file.metadata())
    tensors = load_file(path)
    facts = {**json.loads(header[KEY]), "keep": 0.9}
    save_file(tensors, path, {**header, KEY: json.dumps(facts, sort_keys=True)})
    with pytest.raises(SavedContextError, match="altered"):
        Memory.load(path, *loaded)
    tensors["soft"][0, 0] += 1
    save_file(tensors, path, header)
    with pytest.raises(SavedContextError, match="altered"):
        Memory.load(path, *loaded)


def test_an_unwritable_file_is_reported(memory, tmp_path):
    with pytest.raises(SavedContextError, match="cannot write"):
        memory.save(tmp_path / "no" / "folder" / "m.safetensors")
