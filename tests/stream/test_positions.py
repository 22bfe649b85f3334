"""Phases of a stream that goes on at other positions than the decoder's, where frequencies depend on how far it reaches."""

from dataclasses import dataclass

import pytest
import torch
from helpers.vision_tools import inputs, random_vlm
from helpers.zoo import scaled
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

import laconic
from laconic.cache.contract import CacheMethod
from laconic.step import Step
from laconic.stream.positions import Positions


@pytest.mark.parametrize("kind", ["dynamic", "longrope"])
def test_a_shorter_stream_gets_the_frequencies_of_its_own_length(kind):
    """The decoder ran at 100 positions; renumbered to 40, the stream is rotated as a prompt of 40 tokens is."""
    ours, plain = scaled(kind).model, scaled(kind).model
    x = torch.zeros(1)
    ours.rotary_emb(x, torch.arange(100)[None])
    before = ours.rotary_emb.inv_freq.clone()
    positions = Positions(ours)
    step = Step(0, 100, torch.arange(40)[None], [100])
    got = positions.phases(step, x)
    for a, b in zip(got, plain.rotary_emb(x, step.position_ids), strict=True):
        assert torch.equal(a, b)
    assert positions.phases(step, x) is got and torch.equal(ours.rotary_emb.inv_freq, before)


@dataclass(kw_only=True)
class Asks(CacheMethod):
    """Keeps the newest entries and asks in every layer for the phases of the first three tokens, and of all."""

    name = "asks"

    def __post_init__(self):
        super().__post_init__()
        self.answers = []

    def columns(self, obs):
        self.answers.append((obs.rotary(torch.arange(3)[None]), obs.rotary(obs.step.position_ids)))
        return {}

    def score(self, obs):
        return obs.index.float()


@pytest.mark.parametrize("name", ["divprune", "pyramiddrop", "fastv"])
def test_methods_on_the_cache_see_the_phases_that_each_layer_used(name):
    """Positions shrink before layer 0, between layers, or not at all; frequencies go with them where they shrink."""
    model = random_vlm()
    stack = model.model.language_model
    config = type(stack.config)(
        **stack.config.to_dict()
        | {
            "max_position_embeddings": 64,
            "rope_parameters": {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 4.0},
        }
    )
    stack.rotary_emb = LlamaRotaryEmbedding(config)
    used = []
    for layer in stack.layers:
        layer.self_attn.register_forward_pre_hook(
            lambda module, args, kwargs: used.append(kwargs["position_embeddings"]), with_kwargs=True
        )
    method = Asks(tokens=20)
    with laconic.compress(model, laconic.create_method(name, keep=0.2), method):
        model(**inputs([(3, 9)]))
    assert len(method.answers) == len(used) == len(stack.layers)
    for (first, got), want in zip(method.answers, used, strict=True):
        for few, a, b in zip(first, got, want, strict=True):
            torch.testing.assert_close(a, b, atol=1e-6, rtol=0)
            torch.testing.assert_close(few, b[:, :3], atol=1e-6, rtol=0)  # text, at the start of every stream
    first, last = used[0][0][0, -1], used[-1][0][0, -1]
    assert torch.equal(first, last) == (name != "pyramiddrop")
