"""The stream seam: layers after a selection run on fewer tokens, exactly as if the others had never entered them."""

from contextlib import ExitStack
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from laconic import FastKV, SnapKV, UnsupportedModelError, compress
from laconic.cache.cache import CompressedCache
from laconic.families.base import GENERIC
from laconic.seams import Host
from laconic.step import Step
from laconic.stream import seam

GENERATE = {"max_new_tokens": 6, "do_sample": False, "output_logits": True, "return_dict_in_generate": True}


class Layer(nn.Module):
    """Records what a decoder layer is called with."""

    def forward(self, hidden_states, attention_mask=None, position_ids=None, position_embeddings=None):
        self.seen = {"hidden": hidden_states, "positions": position_ids, "phases": position_embeddings}
        return hidden_states


@pytest.fixture
def stream(llama):
    """Four recording layers, hooked from layer 2 on, with two selections: [0, 3, 4] and of these [1, 2]."""
    layers = nn.ModuleList(Layer() for _ in range(4))
    cache = CompressedCache(llama.config)
    cache.step = Step(0, 5, torch.arange(5)[None], [5])
    stack = SimpleNamespace(layers=layers, config=llama.config)
    shortens = seam.StreamSeam(Host(llama, stack, GENERIC, (FastKV(tsp_layer=1),)), ())
    shortens.check()
    shortens.prepare()
    with ExitStack() as restore:
        shortens.install(restore)
        shortens.adopt(cache)
        shortens.enter({}, cache.step, None)
        yield layers, cache
    assert not any(layer._forward_pre_hooks for layer in layers)


@pytest.mark.parametrize("positional", [True, False])
def test_every_later_layer_gets_the_same_tokens(stream, positional):
    layers, cache = stream
    hidden, positions = torch.randn(1, 5, 2), torch.arange(5)[None]
    constant = {"position_ids": positions, "position_embeddings": (positions[..., None] * 1.0, positions[..., None] * 2.0)}
    for i, layer in enumerate(layers):
        if i == 2:
            cache.selected = torch.tensor([[0, 3, 4]])
        if i == 3:
            cache.selected = torch.tensor([[1, 2]])
        hidden = layer(hidden, **constant) if positional else layer(hidden_states=hidden, **constant)
    kept = [[0, 1, 2, 3, 4], [0, 1, 2, 3, 4], [0, 3, 4], [3, 4]]
    assert [layer.seen["positions"][0].tolist() for layer in layers] == kept
    assert [layer.seen["phases"][0][0, :, 0].tolist() for layer in layers] == kept
    assert [layer.seen["hidden"].shape[1] for layer in layers] == [5, 5, 3, 2]
    assert torch.equal(layers[3].seen["hidden"], layers[0].seen["hidden"][:, 3:])
    assert cache.step.index.tolist() == [[3, 4]] and cache.selected is None


def test_layers_without_a_selection_are_untouched(stream):
    layers, _ = stream
    hidden, phases = torch.randn(1, 5, 2), (torch.zeros(1, 5, 1),) * 2
    for layer in layers:
        layer(hidden, position_embeddings=phases)
        assert layer.seen["hidden"] is hidden and layer.seen["phases"] is phases


def test_a_layer_with_other_arguments_is_refused(stream):
    layers, cache = stream
    cache.selected = torch.tensor([[0, 3]])
    with pytest.raises(UnsupportedModelError, match=r"does not take its rotary phases as the keyword position_embeddings"):
        layers[2](torch.randn(1, 5, 2))


def test_other_kinds_of_layers_after_the_selection_are_refused():
    kinds = ["sliding_attention", "full_attention", "linear_attention", "full_attention"]
    seam.check_layers(kinds, 3)
    seam.check_layers([], 0)
    with pytest.raises(
        UnsupportedModelError, match="before layer 2, but layer 2 is linear_attention, which has to see every"
    ):
        seam.check_layers(kinds, 2)


def reference(model, ids, first, travel):
    """Logits of the last token when only the tokens `travel` run from layer `first` on, at their own positions."""
    base = model.model
    hidden, positions = base.embed_tokens(ids), torch.arange(ids.shape[1])[None]
    for i, layer in enumerate(base.layers):
        if i == first:
            hidden, positions = hidden[:, travel], positions[:, travel]
        n = hidden.shape[1]
        causal = torch.full((n, n), float("-inf")).triu(1)[None, None]
        hidden = layer(hidden, attention_mask=causal, position_embeddings=base.rotary_emb(hidden, positions))
    return model.lm_head(base.norm(hidden))[:, -1]


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_a_shortened_prompt_equals_layers_run_by_hand(llama, prompt, layer):
    ids = prompt(1, 40)
    with compress(llama, FastKV(keep=0.3, tsp_rate=0.4, tsp_layer=layer)) as session:
        logits = llama(ids).logits
    (travel,) = [e.stream[0] for e in session.trace.events if e.stream is not None]
    assert len(travel) == 16 and travel[-1] == 39 and logits.shape[1] == 16
    torch.testing.assert_close(logits[:, -1], reference(llama, ids, layer + 1, travel), rtol=1e-5, atol=1e-5)


def test_skipped_compute_is_not_computed(llama, prompt):
    rows = {}
    handles = [
        layer.mlp.register_forward_pre_hook(lambda m, args, i=i: rows.setdefault(i, []).append(args[0].shape[1]))
        for i, layer in enumerate(llama.model.layers)
    ]
    with compress(llama, FastKV(keep=0.2, tsp_rate=0.25, tsp_layer=1)):
        llama.generate(prompt(2, 40), max_new_tokens=3, do_sample=False)
    for handle in handles:
        handle.remove()
    assert rows == {0: [40, 1, 1], 1: [40, 1, 1], 2: [10, 1, 1], 3: [10, 1, 1]}


def test_a_second_turn_and_chunks(llama, prompt):
    """Positions go on from what was seen, not from what is stored."""
    ids = prompt(1, 40)
    with compress(llama, FastKV(keep=0.3, tsp_rate=0.5)) as session:
        first = llama.generate(ids, **GENERATE, prefill_chunk_size=20)
        assert session.cache.get_seq_length() == 45
        more = torch.cat([first.sequences, prompt(1, 9, seed=2)], 1)
        llama.generate(more, past_key_values=session.cache, **GENERATE)
        assert {layer.seen for layer in session.cache.compressed()} == {60}
        kept = session.kept(3)
    assert kept.max() == 59 and len(kept.unique()) == len(kept)


def test_neutral_rate_leaves_the_stream_alone(llama, prompt):
    ids = prompt(1, 30)
    with compress(llama, FastKV(keep=1.0)) as session:
        assert torch.equal(llama(ids).logits.argmax(-1), llama(ids).logits.argmax(-1))
        assert all(not layer._forward_pre_hooks for layer in llama.model.layers)
    assert session.stats.stream == dict.fromkeys(range(4), 30)
    with compress(llama, SnapKV(keep=0.5)):
        assert all(not layer._forward_pre_hooks for layer in llama.model.layers)
