"""Soft tokens on a stock vLLM: the tokens that transformers decodes after the same vectors."""

import pytest
import torch
from helpers.memory_tools import artifact_of, method
from helpers.vllm_tools import engine, expected, greedy, needs_vllm

import laconic
from laconic.memory.memory import Memory
from laconic.methods.memory.compllm.network import ConceptEmbeddings
from laconic.pretrained import pretrained_path
from laconic.vllm import soft_prompt

pytestmark = [pytest.mark.slow, needs_vllm]
TEXT = "The code for falcon is 4815263. The code for heron is 99. " * 8
QUESTION = "What is the code for falcon?"


def test_soft_tokens_on_a_real_model(tmp_path):
    """SmolLM2 reads a memory in the place of a text: untrained, so what is compared is the hand-over, not its quality."""
    model, tokenizer = laconic.load("smollm2", dtype=torch.float32)
    torch.manual_seed(0)
    network = ConceptEmbeddings(model, 32, 2)
    text = artifact_of("compllm", model, network, tmp_path / "compllm.safetensors", marker=2)
    prompts = []
    for keep in (0.5, 0.25):
        memory = Memory.of(model, tokenizer, TEXT, method(text, keep))
        prompts.append(soft_prompt(memory, model, tokenizer, QUESTION))
    assert len(prompts[0]) > len(prompts[1])
    wanted = [expected(model, inputs_embeds=x[None]) for x in prompts]
    ids = tokenizer.encode(TEXT)[:60]
    plain = expected(model, input_ids=torch.tensor([ids]))
    llm = engine(pretrained_path("smollm2"), enable_prompt_embeds=True)
    assert greedy(llm, [{"prompt_embeds": x} for x in prompts]) == wanted
    table = model.get_input_embeddings().weight.detach()
    assert greedy(llm, [{"prompt_token_ids": ids}, {"prompt_embeds": table[ids]}]) == [plain, plain]
