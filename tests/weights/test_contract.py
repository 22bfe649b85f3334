"""Methods that act on weights: in place while a session is open, told of prompts, composed with methods for the cache."""

import copy
import time
import warnings
from collections.abc import Collection
from contextlib import contextmanager
from dataclasses import dataclass

import pytest
import torch
from helpers.session_tools import GREEDY, assert_same_state, state
from helpers.threads import in_threads, meeting, staying
from helpers.vision_tools import inputs, random_vlm
from helpers.zoo import ALL
from helpers.zoo import prompt as tokens

import laconic
from laconic import ConflictError, SessionError, SnapKV, WeightMethod
from laconic.methods.weights.eas.applied import SkippedLayer, applied
from laconic.methods.weights.eas.network import Adapters


@dataclass(kw_only=True)
class Halved(WeightMethod):
    """Halves what the MLPs add, and writes down when it is told about prompts."""

    name = "halved"

    def __post_init__(self):
        super().__post_init__()
        self.told = []

    @contextmanager
    def apply(self, model):
        handles = [layer.mlp.register_forward_hook(lambda m, args, out: out / 2) for layer in model.model.layers]
        self.told.append("applied")
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()
            self.told.append("restored")


class Told(Halved):
    def before_prompt(self, step):
        self.told.append(("prompt", step.length))

    def before_decoding(self, step):
        self.told.append(("decoding", step.start))


@dataclass(kw_only=True)
class Skipping(WeightMethod):
    """Runs the layers `skip` without attention, with adapters in its place."""

    skip: Collection[int] = (1, 3)
    name = "skipping"

    def attach(self, model):
        torch.manual_seed(0)
        self.adapters = Adapters.of(model, self.skip, width=4, skip_width=6, random=True).eval().requires_grad_(False)

    def apply(self, model):
        return applied(model, self.adapters)

    def without_attention(self, depth):
        return self.skip


def test_applied_inside_and_restored_after(make_llama, prompt):
    model, ids = make_llama(), prompt(1, 12)
    before, stock = state(model), model(ids).logits
    method = Halved()
    with method.apply(model):
        want = model(ids).logits
    method.told.clear()
    with laconic.compress(model, method) as session:
        assert torch.allclose(model(ids).logits, want, atol=1e-5)
        assert session.stats.achieved == session.stats.asked == 1.0
    with pytest.raises(ZeroDivisionError), laconic.compress(model, method):
        raise ZeroDivisionError
    assert method.told == ["applied", "restored"] * 2
    assert_same_state(model, before)
    assert torch.equal(model(ids).logits, stock) and not torch.allclose(want, stock, atol=1e-3)


def test_a_neutral_method_is_not_applied(llama, prompt):
    method = Told(keep=1.0)
    with laconic.compress(llama, method):
        llama(prompt(1, 12))
    assert method.told == []


def test_prompts_are_told_once_each_before_they_run(llama, prompt):
    method = Told()
    with laconic.compress(llama, method, SnapKV(keep=0.5)) as session:
        llama.generate(prompt(1, 20), prefill_chunk_size=8, **GREEDY)
        llama(prompt(1, 5, seed=1), past_key_values=session.cache)  # a later turn runs with the weights of the prompt
        llama(prompt(1, 1), past_key_values=session.cache)
        llama(prompt(1, 7))
        llama(prompt(1, 1), past_key_values=session.cache)
        assert session.stats.compress_seconds > 0
    told = ["applied", ("prompt", 8), ("decoding", 20), ("prompt", 7), ("decoding", 7), "restored"]
    assert method.told == told


def test_a_cache_of_another_prompt_is_refused_and_stays_usable(llama, prompt):
    method = Told()
    with laconic.compress(llama, method) as session:
        llama(prompt(1, 9))
        first = session.cache
        llama(prompt(1, 9, seed=1))
        with pytest.raises(SessionError, match=r"the weights of halved depend on the prompt.*start again without past_key"):
            llama(prompt(1, 1), past_key_values=first)
        llama(prompt(1, 1), past_key_values=session.cache)
    with laconic.compress(llama, Halved()):  # does not depend on prompts
        llama(prompt(1, 1), past_key_values=first)
    with laconic.compress(llama, method), pytest.raises(SessionError, match="depend on the prompt"):
        llama(prompt(1, 1), past_key_values=first)


def test_a_session_that_opens_again_has_the_weights_of_no_prompt(llama, prompt):
    """They went when it closed, so a cache from before is refused as any other."""
    session = laconic.compress(llama, Told())
    with session:
        llama(prompt(1, 9))
        first = session.cache
    with session, pytest.raises(SessionError, match="depend on the prompt"):
        llama(prompt(1, 1), past_key_values=first)


def test_what_it_does_for_a_prompt_is_compression_time(llama, prompt, monkeypatch):
    monkeypatch.setattr(Told, "before_prompt", lambda self, step: time.sleep(0.05))
    with laconic.compress(llama, Told()) as session:
        llama(prompt(1, 9))
    assert session.stats.compress_seconds >= 0.05


def test_weights_of_one_prompt_are_refused_to_calls_at_once(llama, prompt):
    ids = prompt(1, 9)
    with laconic.compress(llama, Told()) as session:
        llama(ids)
        first, other = session.cache, copy.deepcopy(session.cache)
        with staying(llama.model.layers[1], lambda: llama(ids[:, :1], past_key_values=first)):
            for past in (None, other):
                with pytest.raises(SessionError, match="the weights of halved depend on the prompt, so calls cannot run at"):
                    llama(ids[:, :1], past_key_values=past)
        llama(ids[:, :1], past_key_values=first)
        assert first.seen == 11


@dataclass(kw_only=True)
class WithoutAttention(WeightMethod):
    """Layer 1 is its MLP alone, whatever the prompt."""

    name = "without_attention"
    layer = 1

    def inner(self, model):
        return model.model.layers

    @contextmanager
    def apply(self, model):
        layers, at = self.inner(model), self.layer
        own, layers[at] = layers[at], SkippedLayer(layers[at], torch.nn.Identity())
        try:
            yield
        finally:
            layers[at] = own

    def without_attention(self, depth):
        return (self.layer,)


def test_layers_without_attention_are_counted_for_their_own_call(llama, prompt):
    given = [prompt(1, 20), prompt(1, 33)]
    with laconic.compress(llama, WithoutAttention()) as session:

        def work(ids):
            llama(ids)
            return session.stats.stream, session.stats.prefill_flops

        alone = [in_threads(lambda ids=ids: work(ids))[0] for ids in given]
        with meeting(llama.model.layers[1], passes=1):
            assert in_threads(*[lambda ids=ids: work(ids) for ids in given]) == alone
        assert [each[0] for each in alone] == [dict.fromkeys(range(4), 20), dict.fromkeys(range(4), 33)]


def test_two_are_a_conflict(llama):
    with pytest.raises(ConflictError, match="'weights'"):
        laconic.compress(llama, Halved(), Skipping())


@pytest.mark.parametrize("skip", [(0,), (4,)])
def test_layers_that_cannot_run_without_attention(llama, skip):
    class Wrong(Halved):
        def without_attention(self, depth):
            return skip

    message = rf"halved: layer {skip[0]} cannot run without attention; choose from layers 1\.\.3"
    with pytest.raises(ValueError, match=message):
        laconic.compress(llama, Wrong())


@pytest.mark.filterwarnings("ignore:snapkv was asked to keep")  # outside of it, nobody knows
def test_layers_without_attention_store_nothing_beside_a_cache_method(make_llama, prompt):
    model, ids, method = make_llama(), prompt(1, 20), Skipping()
    before = state(model)
    method.attach(model)
    with method.apply(model), laconic.compress(model, SnapKV(keep=0.5)) as outside:
        want = model.generate(ids, **GREEDY)
        kept = outside.kept(2).tolist()
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # storing less than the budget allows is no missed budget
        with laconic.compress(model, method, SnapKV(keep=0.5)) as session:
            assert torch.equal(model.generate(ids, **GREEDY), want)
            assert session.kept(2).tolist() == kept and session.kept(1).tolist() == []
    stats = session.stats
    assert stats.entries == [15.0, 0.0, 15.0, 0.0] and stats.stream == dict.fromkeys(range(4), 20)
    assert_same_state(model, before)


def test_layers_without_attention_are_counted_with_their_own_weights(make_llama, prompt):
    model, n = make_llama(), 16
    method = Skipping()
    with laconic.compress(model, method) as session:
        model(prompt(1, n), logits_to_keep=1)
        replaced = [sum(p.numel() for p in model.model.layers[i].parameters() if p.ndim >= 2) for i in method.skip]
        added = sum(p.numel() for p in method.adapters.kept.parameters() if p.ndim >= 2)
    shape = session.shape
    attention = 4 * shape.head_dim * shape.heads * n * (n + 1) // 2
    kept = [2 * shape.weights[i] * n + attention for i in (0, 2)]
    others = sum(2 * w * n for w in (*replaced, added)) + 2 * shape.head_weights
    assert session.stats.prefill_flops == sum(kept) + others
    assert session.stats.prefill_flops < session.stats.prefill_flops_full


class Adapted(WeightMethod):
    """A linear module beside the attention of layer 1."""

    @contextmanager
    def apply(self, model):
        attention = model.model.layers[1].self_attn
        before = attention.q_proj
        attention.q_proj = torch.nn.Sequential(before, torch.nn.Linear(32, 32, bias=False))
        try:
            yield
        finally:
            attention.q_proj = before


def test_modules_that_are_added_to_a_layer_are_counted(make_llama, prompt):
    model, ids = make_llama(), prompt(2, 16)
    with laconic.compress(model) as plain:
        model(ids)
        model(ids[:, :1], past_key_values=plain.cache)
    with laconic.compress(model, Adapted()) as session:
        model(ids)
        model(ids[:, :1], past_key_values=session.cache)
    assert session.stats.prefill_flops - plain.stats.prefill_flops == 2 * 32 * 32 * 2 * 16
    assert session.stats.decode_flops - plain.stats.decode_flops == 2 * 32 * 32 * 2


def test_a_shortened_stream_reaches_layers_without_attention(make_llama, prompt):
    model = make_llama()
    with laconic.compress(model, Skipping(skip=(3,)), laconic.FastKV(keep=0.25, tsp_rate=0.25, tsp_layer=1)) as session:
        model(prompt(1, 40))
    assert session.stats.stream == {0: 40, 1: 40, 2: 10, 3: 10}


def test_a_method_without_apply_says_so(llama):
    class Empty(WeightMethod):
        pass

    with pytest.raises(NotImplementedError, match=r"Empty must define apply\(\)"), laconic.compress(llama, Empty()):
        pass


def test_what_is_asked_is_asked_of_the_layers_with_attention(llama, prompt):
    for methods, share in (((), 0.5), ((SnapKV(keep=0.5),), 0.25)):
        with laconic.compress(llama, Skipping(), *methods) as session:
            llama(prompt(1, 40))
        assert session.stats.asked == session.stats.achieved == share


def test_layers_that_the_cache_leaves_alone_change_nothing_of_what_is_asked():
    """Layer 0 and 2 slide and are not compressed: without its attention, layer 2 does not change the share of the others."""
    model = ALL["qwen2-sliding"].build()

    class Sliding(WithoutAttention):
        layer = 2

    with torch.no_grad(), laconic.compress(model, Sliding(), SnapKV(keep=0.5)) as session:
        model(tokens(1, 40))
    assert session.stats.layers == [1, 3] and session.stats.asked == 0.5


def test_modules_that_stay_are_counted_once_in_every_session_and_left_without_hooks(make_llama, prompt):
    """The same module, put into the model again by every session."""
    model, ids = make_llama(), prompt(1, 16)
    added = torch.nn.Linear(32, 32, bias=False)
    skipped = SkippedLayer(model.model.layers[1], torch.nn.Identity())

    class Again(Adapted):
        @contextmanager
        def apply(self, model):
            attention = model.model.layers[2].self_attn
            before, attention.q_proj = attention.q_proj, torch.nn.Sequential(attention.q_proj, added)
            own, model.model.layers[1] = model.model.layers[1], skipped
            try:
                yield
            finally:
                attention.q_proj, model.model.layers[1] = before, own

        def without_attention(self, depth):
            return (1,)

    flops = []
    for _ in range(3):
        with laconic.compress(model, Again()) as session:
            model(ids)
        flops.append((session.stats.prefill_flops, session.stats.stream))
        assert not added._forward_hooks and not skipped._forward_hooks
    assert flops[0] == flops[1] == flops[2]


def test_models_that_become_smaller_are_counted_by_what_is_left(make_llama, prompt):
    model, ids = make_llama(), prompt(1, 16)

    class Narrow(Adapted):
        """The MLPs keep half of their units."""

        resizes = True

        @contextmanager
        def apply(self, model):
            before = [layer.mlp.up_proj for layer in model.model.layers]
            for layer in model.model.layers:
                layer.mlp.up_proj = torch.nn.Linear(32, 16, bias=False)
                layer.mlp.gate_proj, layer.mlp.down_proj = torch.nn.Linear(32, 16), torch.nn.Linear(16, 32)
            try:
                yield
            finally:
                for layer, up in zip(model.model.layers, before, strict=True):
                    layer.mlp.up_proj = up

    with laconic.compress(model) as plain:
        model(ids)
    with laconic.compress(model, Narrow()) as session:
        model(ids)
    assert plain.stats.prefill_flops - session.stats.prefill_flops == 4 * 3 * 2 * 32 * (64 - 16) * 16


def test_images_are_counted_per_sequence_in_layers_without_attention():
    model = random_vlm()

    class OfImages(WithoutAttention):
        def inner(self, model):
            return model.model.language_model.layers

    found = []
    for batch in ([(3, 9)], [(3, 9), (4, 8)]):
        with torch.no_grad(), laconic.compress(model, OfImages(), laconic.FastV(keep=0.5)) as session:
            model(**inputs(batch))
        found.append(session.stats.visual)
    assert found[0] == found[1] and found[0][1] > 0
