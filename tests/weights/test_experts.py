"""Where experts are, and fewer or narrower ones."""

import pytest
import torch
from helpers.moe_tools import MIXTRAL, QWEN, moe
from helpers.weight_tools import logits
from transformers import AutoModelForCausalLM

from laconic import UnsupportedModelError
from laconic.weights.experts import mixtures, resized
from laconic.weights.restored import restored

BOTH = pytest.mark.parametrize("kind", [MIXTRAL, QWEN], ids=["mixtral", "qwen3-moe"])


@BOTH
def test_an_expert_gives_what_the_model_lets_it_give(kind):
    model = moe(kind)
    block = mixtures(model, "x")[1]
    x = torch.randn(5, 64)
    for expert in (0, 3):
        alone = block.experts(x, torch.full((5, 1), expert), torch.ones(5, 1))
        torch.testing.assert_close(block.output(expert, x), alone, atol=1e-5, rtol=1e-4)


@BOTH
def test_narrow_experts_are_those_with_the_other_neurons_at_zero(kind, prompt, tmp_path):
    """Slicing is masking; and the folder loads."""
    model, masked, ids = moe(kind), moe(kind), prompt(1, 12) % 97
    width = mixtures(model, "x")[0].neurons
    drawn = torch.Generator().manual_seed(1)
    kept = torch.stack([torch.randperm(width, generator=drawn)[: width // 2].sort().values for _ in range(6)])
    for block in mixtures(masked, "x"):
        gone = torch.ones(6, width, dtype=torch.bool).scatter_(1, kept, False)
        block.experts.down_proj.data.masked_fill_(gone[:, None], 0)
    for block in mixtures(model, "x"):
        block.narrow(kept)
    resized(model, width=width // 2)
    torch.testing.assert_close(logits(model, ids), logits(masked, ids), atol=1e-5, rtol=1e-5)
    model.save_pretrained(tmp_path)
    torch.testing.assert_close(logits(AutoModelForCausalLM.from_pretrained(tmp_path), ids), logits(model, ids))


@BOTH
def test_all_neurons_and_all_experts_are_the_model(kind, prompt):
    model, ids = moe(kind), prompt(1, 12)
    before = logits(model, ids)
    with restored(model):
        for block in mixtures(model, "x"):
            block.choose(torch.arange(6))
            block.narrow(torch.arange(block.neurons).expand(6, -1))
        assert torch.equal(logits(model, ids), before)


def test_a_dense_model_has_none(llama):
    with pytest.raises(UnsupportedModelError, match="no mixture of experts"):
        mixtures(llama, "x")
