"""Warming up runs the stock model and a session, and leaves nothing behind."""

import pytest
from helpers.bench_tools import tiny

from laconic.engine.warm_up import TOKENS, warm_up
from laconic.method import create_method
from laconic.methods.cache.random import Random
from laconic.ops import compiled
from laconic.prompts.text import build


@pytest.fixture(scope="module")
def model_and_prompt():
    model, tokenizer = tiny()
    return model, build(tokenizer, "word " * 300, "What?")


def test_few_tokens_run_twice_without_gradients(model_and_prompt):
    model, prompt = model_and_prompt
    lengths, gradients = [], []
    handle = model.lm_head.register_forward_hook(lambda module, args, output: gradients.append(output.requires_grad))
    stack = model.model.register_forward_pre_hook(
        lambda module, args, kwargs: lengths.append(kwargs["input_ids"].shape[1]), with_kwargs=True
    )
    warm_up(model, prompt)
    handle.remove()
    stack.remove()
    assert prompt.tokens > TOKENS and lengths == [TOKENS, 1] * 2 and not any(gradients)


def test_methods_run_too_and_a_budget_that_is_too_small_is_left_to_the_real_run(model_and_prompt):
    model, prompt = model_and_prompt
    passes = []

    class Spy(Random):
        def score(self, obs):
            passes.append(obs.step.length)
            return super().score(obs)

    warm_up(model, prompt, [Spy(keep=0.5)])
    assert set(passes) == {TOKENS}
    warm_up(model, prompt, [create_method("snapkv", bytes=1)])
    assert model.config._attn_implementation != "laconic" and not model._forward_hooks


def test_loops_are_loaded_only_where_the_prompt_needs_them(model_and_prompt, monkeypatch):
    model, prompt = model_and_prompt
    heads, size, loaded = model.config.num_attention_heads, model.config.head_dim, []
    monkeypatch.setattr(compiled, "attend_dense", lambda *given: loaded.append([list(x.shape) for x in given[:3]]))
    monkeypatch.setattr(compiled, "DENSE", 2 * heads * size * prompt.tokens + 1)
    warm_up(model, prompt)
    assert not loaded
    monkeypatch.setattr(compiled, "DENSE", 2 * heads * size * prompt.tokens)
    warm_up(model, prompt)
    one = [1, model.config.num_key_value_heads, 1, size]
    assert loaded == [[[1, heads, 1, size], one, one]]
