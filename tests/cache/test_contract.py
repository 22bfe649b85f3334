"""What all eviction methods share: forced and protected entries, padding, budgets, and where tokens are after a cut."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from helpers.method_tools import SPECS
from helpers.reference import chosen, left_padding, observe

import laconic
from laconic.cache.contract import CacheMethod
from laconic.cache.hooks import SelectsStream
from laconic.errors import BudgetError
from laconic.method import CATALOGUE

MERGES = "ems"  # what it stores are mixtures of tokens; tests/cache/test_ems.py has its reference
EXACT = {  # dense prefill, no mixtures
    "zipvl": "zipvl",
    "razorattention": "razorattention:heads=no,compensate=false",
    "attention_matching": "attention_matching:fit_bias=false,fit_values=false",
}
METHODS = [e.name for e in laconic.list_methods() if issubclass(e.cls, CacheMethod) and e.name != MERGES]


class Ascending(CacheMethod):
    """Later entries score higher; sinks and recent tokens as told."""

    ends = (0, 0)

    def score(self, obs):
        return obs.index.float()

    def forced(self):
        return self.ends


class Descending(Ascending):
    def score(self, obs):
        return -obs.index.float()


def test_the_best_of_every_head_stay():
    selection = Ascending().select(observe(n=9, targets=[3, 3]))
    assert chosen(selection, 0, 0) == chosen(selection, 1, 1) == [6, 7, 8]


def test_nothing_is_chosen_when_the_budget_holds_all():
    assert Ascending().select(observe(n=9, targets=[9, 9])) is None


@pytest.mark.parametrize(("ends", "kept"), [((2, 0), [0, 1, 7, 8]), ((0, 3), [5, 6, 7, 8]), ((3, 9), [0, 1, 7, 8])])
def test_forced_ends_stay_and_take_half_the_budget_at_most(ends, kept):
    class Forced(Ascending if ends[0] else Descending):
        pass

    Forced.ends = ends
    got = chosen(Forced().select(observe(n=9, targets=[4, 4])), 0, 0)
    want = {(2, 0): [0, 1, 7, 8], (0, 3): [0, 1, 7, 8], (3, 9): [0, 1, 7, 8]}[ends]
    assert got == want


def test_protected_entries_win_over_everything():
    class Recent(Ascending):
        ends = (0, 9)

    protected = torch.zeros(2, 2, 9, dtype=torch.bool)
    protected[:, :, 1:4] = True
    assert chosen(Recent().select(observe(n=9, targets=[4, 4], protected=protected)), 1, 0) == [1, 2, 3, 8]
    with pytest.raises(BudgetError, match=r"3 tokens are protected .* leaves 2 entries in layer 0"):
        Recent().select(observe(n=9, targets=[2, 2], protected=protected))


def test_padding_is_never_chosen_and_rows_have_their_own_budget():
    selection = Descending().select(observe(n=9, valid=left_padding(9, 5, 0), targets=[2, 4]))
    assert chosen(selection, 0, 1) == [5, 6] and chosen(selection, 1, 0) == [0, 1, 2, 3]


def test_scores_of_the_wrong_shape_are_refused():
    class Wrong(CacheMethod):
        def score(self, seen):
            return torch.zeros(3)

    with pytest.raises(ValueError, match="one score per entry"):
        Wrong().select(observe(n=9, targets=[2, 2]))
    with pytest.raises(NotImplementedError, match="must define score"):
        CacheMethod().select(observe(n=9, targets=[2, 2]))


def test_targets_are_a_share_of_what_every_row_has_seen():
    obs = observe(n=20, valid=left_padding(20, 7, 0))
    assert Ascending(keep=0.3).targets(0, 4, obs.step, [13, 20], 100) == [int(13 * 0.3), int(20 * 0.3)]
    assert Ascending(tokens=15).targets(0, 4, obs.step, [13, 20], 100) == [13, 15]
    assert Ascending(bytes=650).targets(0, 4, obs.step, [13, 20], 100) == [6, 6]
    assert Ascending(keep=0.01).targets(0, 4, obs.step, [13, 20], 100) == [1, 1]


# -- positions: an evicted cache equals a full one whose removed keys are hidden ---------------------------------------
@contextmanager
def masks(model, per_layer: dict[int, torch.Tensor]) -> Iterator[None]:
    """Run an eager model with an additive attention mask [B, H, T, n] of our own in every layer."""

    def hook(layer):
        def replace(module, args, kwargs):
            return args, kwargs | {"attention_mask": per_layer[layer]}

        return replace

    handles = [
        layer.self_attn.register_forward_pre_hook(hook(i), with_kwargs=True) for i, layer in enumerate(model.model.layers)
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def hidden(visible: torch.Tensor) -> torch.Tensor:
    return torch.zeros(visible.shape).masked_fill(~visible, torch.finfo(torch.float32).min)


@pytest.fixture(scope="module")
def eager(make_llama):
    return make_llama(implementation="eager")


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("chunk", [None, 16])
def test_logits_equal_a_full_cache_whose_removed_keys_are_hidden(llama, eager, prompt, name, chunk):
    """After a cut the next token is number N of the sequence, whatever the cache's length; seven tokens are decoded."""
    n, steps = 48, 7
    ids, new = prompt(2, n), prompt(2, steps, seed=1)
    method = laconic.create_method(EXACT.get(name, SPECS.get(name, name)), keep=0.3)
    evicted, kept_before, got = [], [], []

    def kept(session):
        return [[[session.kept(layer, h, b) for h in range(2)] for b in range(2)] for layer in range(4)]

    with laconic.compress(llama, method) as session:
        cache = None
        for piece in [ids] if chunk is None else ids.split(chunk, 1):
            kept_before.append(None if cache is None else kept(session))
            got.append(llama(piece, past_key_values=cache).logits)
            cache = session.cache
        streams = [e.stream for e in session.trace.events if e.stream is not None]  # one per pass of the prompt
        for i in range(steps):
            kept_before.append(kept(session))
            got.append(llama(new[:, i : i + 1], past_key_values=cache).logits)
            evicted.append(cache.get_seq_length())
    assert evicted == [n + i + 1 for i in range(steps)]

    first_short = method.shortens_from(4) if isinstance(method, SelectsStream) else None
    start, cache = 0, None
    pieces = ([ids] if chunk is None else list(ids.split(chunk, 1))) + list(new.split(1, 1))
    for number, piece in enumerate(pieces):
        t = piece.shape[1]
        stop = start + t
        per_layer = {}
        for layer in range(4):
            visible = torch.zeros(2, 4, t, stop, dtype=torch.bool)
            for b in range(2):
                for h in range(4):
                    if kept_before[number] is not None:
                        visible[b, h][:, kept_before[number][layer][b][h // 2]] = True
                    visible[b, h, :, start:] = torch.ones(t, t, dtype=torch.bool).tril()
                if number < len(streams) and layer >= first_short:
                    gone = torch.ones(t, dtype=torch.bool)
                    gone[streams[number][b]] = False
                    visible[b, :, :, start:][:, :, gone] = False
                    visible[b, :, gone, start] = True  # rows of tokens that did not travel on: anything will do
            per_layer[layer] = hidden(visible)
        with masks(eager, per_layer):
            out = eager(piece, past_key_values=cache, use_cache=True)
        cache = out.past_key_values
        torch.testing.assert_close(got[number][:, -1], out.logits[:, -1], atol=1e-4, rtol=1e-4)
        start = stop
    full = eager(torch.cat([ids, new], 1)).logits[:, -1]
    assert (full - got[-1][:, -1]).abs().max() > 1e-2  # eviction does change the outputs of this model


def test_every_method_is_covered():
    assert len(METHODS) >= 18 and all(CATALOGUE[name].name == name for name in METHODS)
