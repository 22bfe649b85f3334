"""The shipped model: what it is, and the gate that its uncompressed accuracy must pass."""

import pytest
import torch
from safetensors import safe_open
from transformers import LlamaForCausalLM

from laconic.shipped import model_path
from laconic.tasks.text.retrieval import EVALUATION_SEED, TASKS
from laconic.testbed.evaluate import BELOW_GATE, GATE, cell, generate

# Not the seeds of the model card's table.
SEED = EVALUATION_SEED + 50_000


def test_it_is_a_small_llama_with_grouped_heads(model):
    assert isinstance(model, LlamaForCausalLM)
    assert 1e6 < model.num_parameters() < 8e6
    assert model.config.num_attention_heads > model.config.num_key_value_heads
    weights = model_path("testbed/lm") / "model.safetensors"
    assert weights.stat().st_size <= 20e6
    with safe_open(weights, "pt") as file:
        dtypes = {file.get_slice(name).get_dtype() for name in list(file.keys())}
    assert dtypes <= {"BF16", "F16"}


def test_unknown_names_get_the_closest():
    with pytest.raises(ValueError, match="testbed/lm"):
        model_path("testbed/lmm")


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_gate_at_512(task, model, tokenizer):
    recall, _ = cell(model, tokenizer, task, 512, 24, seed=SEED)
    # 24 samples of a task at 95 % fall below 85 % about once in thirty draws; the seeds are fixed.
    assert recall >= GATE - 0.05


@pytest.mark.slow
@pytest.mark.parametrize("tokens", [1024, 2048])
@pytest.mark.parametrize("task", TASKS)
def test_gate_at_longer_contexts(task, tokens, model, tokenizer):
    recall, _ = cell(model, tokenizer, task, tokens, 24, seed=SEED)
    # Cells that the model card names as below the gate are held to what they reach.
    assert recall >= (0.88 if (task, tokens) in BELOW_GATE else GATE - 0.05)


def test_a_needle_in_ones_own_markdown_is_found(model, tokenizer):
    document = (
        "# My project\n\nA small tool that sorts photographs by the place where they were taken.\n\n"
        "## Install\n\nRun `pip install sorter`, then start it with `sorter --help`.\n\nThe code for falcon is 4815263.\n\n"
        "## Use\n\n- Put your images in one folder.\n- Name the places in `places.toml`.\n\n"
        "## Licence\n\nMIT"
    )
    chat = [{"role": "user", "content": f"{document}\n\nQuestion: What is the code for falcon?"}]
    ids = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=False)
    assert generate(model, tokenizer, [ids], 12) == ["The code for falcon is 4815263."]


def test_left_padding_changes_no_answer(model, tokenizer):
    chats = [
        [
            {
                "role": "user",
                "content": f"The code for otter is 1234567.\n{more}\n\nQuestion: What is the code for otter?",
            }
        ]
        for more in (
            "It is late.",
            "This line is longer than the other one and says nothing at all about codes.",
        )
    ]
    prompts = [tokenizer.apply_chat_template(c, add_generation_prompt=True, return_dict=False) for c in chats]
    alone = [generate(model, tokenizer, [p], 12)[0] for p in prompts]
    assert generate(model, tokenizer, prompts, 12) == alone
    assert torch.is_inference_mode_enabled() is False
