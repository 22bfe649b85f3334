"""Soft tokens as prompts of vLLM."""

import base64
import io
from types import SimpleNamespace

import pytest
import torch
from helpers.memory_tools import artifact_of, method

import laconic
from laconic.errors import ConflictError, UnsupportedModelError
from laconic.memory.memory import Memory
from laconic.methods.memory.compllm.network import ConceptEmbeddings
from laconic.vllm import encoded, soft_prompt
from laconic.vllm.soft import check_one_position

TEXT = "The code for falcon is 4815263. " * 4


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    model, tokenizer = laconic.load("testbed/lm")
    torch.manual_seed(0)
    network = ConceptEmbeddings(model, 8, 2)
    text = artifact_of("compllm", model, network, tmp_path_factory.mktemp("a") / "compllm.safetensors", marker=2)
    return Memory.of(model, tokenizer, TEXT, method(text)), model, tokenizer


def test_the_memory_stands_between_the_opening_and_the_question(made):
    memory, model, tokenizer = made
    found = soft_prompt(memory, model, tokenizer, "What is the code?", answer_prefix="It is")
    prompt = memory.prompt(tokenizer, "What is the code?", answer_prefix="It is")
    table = model.get_input_embeddings().weight
    opening = prompt.context[: prompt.opening]
    assert torch.equal(found, torch.cat([table[opening], memory.soft, table[prompt.question]]))


def test_as_text_and_back(made):
    embeddings = torch.randn(5, 8)
    assert torch.equal(torch.load(io.BytesIO(base64.b64decode(encoded(embeddings)))), embeddings)
    for wrong in (torch.randn(1, 5, 8), torch.zeros(5, 8, dtype=torch.long), torch.zeros(0, 8)):
        with pytest.raises(ValueError, match="one row for every token"):
            encoded(wrong)


def test_prefixes_and_models_of_several_positions_are_refused(made):
    _, model, tokenizer = made
    prefix = SimpleNamespace(prefix=object(), method=SimpleNamespace(name="beacon"))
    with pytest.raises(ConflictError, match=r"beacon makes keys and values.*hand_over"):
        soft_prompt(prefix, model, tokenizer, "?")
    model.config.rope_parameters["mrope_section"] = [2, 3, 3]
    try:
        with pytest.raises(UnsupportedModelError, match="M-RoPE"):
            check_one_position(model)
    finally:
        del model.config.rope_parameters["mrope_section"]
