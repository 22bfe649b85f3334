"""The late cut: one budget over the heads of all layers, against a list sorted by hand."""

import pytest
import torch

import laconic
from laconic import AdaKV, BudgetError, ConflictError
from laconic.cache.contract import CacheMethod
from laconic.cache.parts.ragged import RaggedPart

N = 37


class ByRank(CacheMethod):
    """Ranks by a table [layers, B, Hkv, N]."""

    ragged, cuts_late = True, True

    def __init__(self, table, sinks=0, **budget):
        super().__init__(**budget)
        self.table, self.sinks, self.name = table, sinks, "by_rank"

    def forced(self):
        return self.sinks, 0

    def score(self, obs):
        return self.table[obs.layer][..., : obs.keys.shape[2]]


def by_hand(table, valid, keep, sinks):
    """Kept tokens of every layer and head of one row: sort all (score, place) pairs, take the best."""
    layers, heads, n = table.shape
    tokens = [t for t in range(n) if valid[t]]
    budget = max(1, int(len(tokens) * keep + 1e-6)) * layers * heads
    first = set(tokens[: min(sinks, max(1, int(len(tokens) * keep + 1e-6)) // 2)])
    places = [
        (t not in first, -float(table[layer, head, t]), layer, head, t)
        for layer in range(layers) for head in range(heads) for t in tokens
    ]  # fmt: skip
    kept = [[[] for _ in range(heads)] for _ in range(layers)]
    for _, _, layer, head, t in sorted(places)[:budget]:
        kept[layer][head].append(t)
    return [[sorted(head) for head in layer] for layer in kept]


@pytest.mark.parametrize("keep", [0.5, 0.2, 0.03])
@pytest.mark.parametrize("sinks", [0, 3])
@pytest.mark.parametrize("ties", [False, True])
def test_the_best_of_all_layers_and_heads_stay(llama, prompt, keep, sinks, ties):
    generator = torch.Generator().manual_seed(int(100 * keep) + sinks)
    table = torch.rand(4, 2, 2, N, generator=generator) * torch.tensor([1.0, 0.1, 3.0, 1.0])[:, None, None, None]
    if ties:
        table = (table * 4).round()
    ids, mask = prompt(2, N), torch.ones(2, N, dtype=torch.long)
    ids[0, :11], mask[0, :11] = 0, 0
    with laconic.compress(llama, ByRank(table, sinks, keep=keep)) as session:
        llama(ids, attention_mask=mask)
    for row in range(2):
        want = by_hand(table[:, row], mask[row].bool().tolist(), keep, sinks)
        got = [[session.kept(layer, head, row).tolist() for head in range(2)] for layer in range(4)]
        assert got == want
    asked = [max(1, int(n * keep + 1e-6)) for n in (26, N)]
    assert sum(int(layer.lengths.sum()) for layer in session.cache.compressed()) == 4 * 2 * sum(asked)
    assert {event.layer for event in session.trace.events} == set(range(4))


def test_memory_is_freed_and_empty_heads_attend_to_nothing(llama, prompt):
    """All of the budget goes to one head of one layer: the others answer from new tokens alone, without nan."""
    table = torch.zeros(4, 1, 2, N)
    table[1, :, 1] = 1 + torch.rand(1, N)
    with laconic.compress(llama, ByRank(table, keep=1 / 8)) as session:
        out = llama.generate(
            prompt(1, N), max_new_tokens=3, do_sample=False, pad_token_id=0, output_logits=True, return_dict_in_generate=True
        )
        lengths = torch.stack([layer.lengths[0] for layer in session.cache.compressed()])
    assert torch.stack(out.logits).isfinite().all()
    assert lengths.tolist() == [[2, 2], [2, 2 + 4 * 8], [2, 2], [2, 2]]
    part = session.cache.layers[1].parts[0]
    assert isinstance(part, RaggedPart) and session.stats.kv_bytes == (32 + 8 * 2) * 2 * 8 * 4


def test_a_budget_that_holds_all_cuts_nothing(llama, prompt):
    with laconic.compress(llama, ByRank(torch.rand(4, 1, 2, N), tokens=N)) as session:
        llama(prompt(1, N))
    assert not session.trace.events and session.kept(0).tolist() == list(range(N))


def test_protected_entries_stay_in_every_head(llama, prompt):
    table = torch.rand(4, 1, 2, N)
    with laconic.compress(llama, ByRank(table, keep=0.2), protect=(5, 9)) as session:
        llama(prompt(1, N))
    assert all({5, 6, 7, 8} <= set(session.kept(layer, head).tolist()) for layer in range(4) for head in range(2))
    with pytest.raises(BudgetError, match="protected"), laconic.compress(llama, ByRank(table, keep=0.2), protect=(0, 30)):
        llama(prompt(1, N))


@pytest.mark.parametrize("stops", [(20, N), (20, 24, 26, N), (4, 30, 32)])
def test_chunks_are_cut_one_after_the_other(llama, prompt, stops):
    """After each chunk what is held is the budget of what was seen, also where a layer had been left with little."""
    ids, table = prompt(1, N), torch.rand(4, 1, 2, N) * torch.tensor([1.0, 0.1, 3.0, 1.0])[:, None, None, None]
    with laconic.compress(llama, ByRank(table, keep=0.25)) as session:
        for start, seen in zip((0, *stops), stops, strict=False):
            llama(ids[:, start:seen], past_key_values=session.cache)
            held = sum(int(layer.lengths.sum()) for layer in session.cache.compressed())
            assert held == int(seen * 0.25) * 8 and session.stats.kv_bytes == held * 2 * 8 * 4


def test_chunks_bound_what_waits(llama, prompt):
    """A whole prompt waits whole; a chunk waits beside what earlier ones left (as rectangles, so a little more); layer by
    layer nothing waits."""
    per_entry = 4 * 2 * 2 * 8 * 4
    ids, waited = prompt(1, 36), []
    for chunk in (36, 12):
        with laconic.compress(llama, ByRank(torch.rand(4, 1, 2, 36), keep=0.25)) as session:
            for start in range(0, 36, chunk):
                llama(ids[:, start : start + chunk], past_key_values=session.cache)
        waited.append(session.stats.kv_bytes_waiting)
    assert waited[0] == 36 * per_entry and (6 + 12) * per_entry <= waited[1] < 22 * per_entry
    with laconic.compress(llama, AdaKV(keep=0.25)) as session:
        llama(ids)
    assert session.stats.kv_bytes_waiting == 0


def test_what_is_held_waits(llama, prompt):
    ids = prompt(1, N)
    with laconic.compress(llama, ByRank(torch.rand(4, 1, 2, N + 5), keep=0.25)) as session:
        llama(ids)
        kept = session.kept(2, 1).tolist()
        with session.hold():
            llama(prompt(1, 5, seed=8), past_key_values=session.cache)
    assert session.kept(2, 1).tolist() == [*kept, *range(N, N + 5)]


@pytest.mark.parametrize("scorer", ["keydiff", "snapkv:window=4", "expected_attention"])
def test_every_scorer_may_compete_over_the_model(llama, prompt, scorer):
    """`over="model"` keeps the same number as `over="layer"`, where the scores of the layers say so."""
    ids, found = prompt(1, N), {}
    for over in ("layer", "model"):
        with laconic.compress(llama, AdaKV(scorer=scorer, over=over, keep=0.3)) as session:
            llama.generate(ids, max_new_tokens=2, do_sample=False, pad_token_id=0)
            found[over] = torch.stack([layer.lengths[0] for layer in session.cache.compressed()])
    assert found["layer"].sum() == found["model"].sum()
    assert len(set(found["layer"].sum(1).tolist())) == 1 < len(set(found["model"].sum(1).tolist()))


def test_packing_beside_it_is_refused(llama):
    with pytest.raises(ConflictError, match="different number of entries in every head"):
        laconic.compress(llama, AdaKV(over="model", keep=0.5), laconic.KIVI())
    with pytest.raises(ValueError, match="choose 'layer' or 'model'"):
        AdaKV(over="head")


def test_one_row_fits_its_budget_and_another_does_not(llama, prompt):
    ids, mask = prompt(2, N), torch.ones(2, N, dtype=torch.long)
    ids[0, :17], mask[0, :17] = 0, 0
    with laconic.compress(llama, ByRank(torch.rand(4, 2, 2, N), tokens=25)) as session:
        llama(ids, attention_mask=mask)
    held = sum(layer.lengths.sum(1) for layer in session.cache.compressed())
    assert held.tolist() == [8 * 20, 8 * 25]


def test_layers_of_different_budgets_share_their_sum(llama, prompt):
    class Falling(ByRank):
        def layer_entries(self, layer, layers, mean, seen):
            return mean + (3, 1, -1, -3)[layer]

    with laconic.compress(llama, Falling(torch.rand(4, 1, 2, N), tokens=10)) as session:
        llama(prompt(1, N))
    assert sum(int(layer.lengths.sum()) for layer in session.cache.compressed()) == 8 * 10
