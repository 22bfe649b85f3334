"""REAP's figure expert by expert, and models with fewer experts."""

import pytest
import torch
from helpers.moe_tools import MIXTRAL, QWEN, moe
from helpers.testbed_model import tokenizer  # noqa: F401
from helpers.weight_tools import in_session, logits, windows
from transformers import AutoModelForCausalLM

import laconic
from laconic import baking
from laconic.artifact import Artifact
from laconic.methods.weights.reap import REAPFit
from laconic.weights.experts import mixtures
from laconic.weights.restored import restored

BOTH = pytest.mark.parametrize("kind", [MIXTRAL, QWEN], ids=["mixtral", "qwen3-moe"])


class OnIds(REAPFit):
    """Over given windows."""

    def facts(self):
        self.tokenizer = lambda text, **more: {"input_ids": windows(self.model, 1, 400)[0].tolist()}
        return super().facts()


def fitted(model, keep=0.5):
    fit = OnIds(windows=3, tokens=20)
    fit.build(model, None)
    data = fit.facts()
    method = laconic.REAP(keep=keep)
    method.fitted = Artifact.of("reap", "measured", model, data, fit.tensors())
    return method, fit


@BOTH
def test_the_figure_token_by_token(kind):
    model = moe(kind)
    method, fit = fitted(model)
    seen = []
    block = mixtures(model, "x")[0]
    hook = block.block.register_forward_pre_hook(lambda m, args: seen.append(args[0].flatten(0, -2)))
    with torch.no_grad():
        model(input_ids=fit._ids.long())
    hook.remove()
    sums, counts = torch.zeros(6), torch.zeros(6)
    for x in seen[0]:
        likely = torch.softmax(block.router.weight @ x, -1)
        weights, chosen = likely.topk(2)
        for weight, expert in zip(weights / weights.sum(), chosen, strict=True):
            gate_up = block.experts.gate_up_proj[expert] @ x
            half = len(gate_up) // 2
            f = block.experts.down_proj[expert] @ (torch.nn.functional.silu(gate_up[:half]) * gate_up[half:])
            sums[expert] += weight * f.norm()
            counts[expert] += 1
    found = method.fitted.tensors
    torch.testing.assert_close(found["tokens"][0], counts)
    torch.testing.assert_close(found["saliency"][0], sums / counts.clamp(min=1), atol=1e-5, rtol=1e-4)


@BOTH
def test_the_lowest_experts_are_gone_and_the_router_does_without_them(kind, prompt, tmp_path):
    """As if the router could never choose them; and the folder loads."""
    model, ids = moe(kind), prompt(1, 14)
    method, _ = fitted(model)
    gone = method.fitted.tensors["saliency"].argsort(1)[:, :3]
    masked = moe(kind)
    for block, experts in zip(mixtures(masked, "x"), gone, strict=True):

        def forget(module, args, output, experts=experts, block=block):
            scores = torch.nn.functional.linear(args[0].reshape(-1, 64), module.weight)
            scores[:, experts] = float("-inf")
            weights, chosen = scores.softmax(-1).topk(2)
            return scores, weights / weights.sum(-1, keepdim=True), chosen

        block.router.register_forward_hook(forget)
    want = logits(masked, ids)
    with laconic.compress(model, method), torch.no_grad():
        torch.testing.assert_close(model(input_ids=ids).logits, want, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(logits(model, ids), want, atol=1e-2)
    with restored(model):
        method.prepare(model)
        facts = method.edit(model)
        model.save_pretrained(tmp_path)
    assert facts == {"experts": 3, "experts before": 6}
    torch.testing.assert_close(logits(AutoModelForCausalLM.from_pretrained(tmp_path), ids), want, atol=1e-4, rtol=1e-4)


def test_bad_models_and_budgets(llama, tokenizer):  # noqa: F811
    with pytest.raises(laconic.UnsupportedModelError, match="no mixture of experts"):
        baking.fitted(laconic.REAP(), llama, tokenizer)
    model = moe(MIXTRAL)
    with pytest.raises(laconic.BudgetError, match="leaves 1 of 6 experts, and 2 run per token"):
        laconic.compress(model, fitted(model, keep=0.2)[0])
    ids = windows(model, 1, 8)
    torch.testing.assert_close(in_session(model, laconic.REAP(keep=1.0), ids), logits(model, ids))
