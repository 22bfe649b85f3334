"""ZipVL in sessions: padding, budgets, chunks, protection, refusals."""

import pytest
import torch
from helpers.slow_zipvl import GREEDY

import laconic
from laconic import BudgetError, ConflictError
from laconic.methods.cache.zipvl import ZipVL, share_of_bytes


@pytest.mark.slow
# what the cache asks of every method
@pytest.mark.filterwarnings("ignore:zipvl was asked")
@pytest.mark.parametrize("mode", ["evict", "quant"])
@pytest.mark.parametrize("budget", [{"keep": 0.3}, {}], ids=str)
def test_a_padded_batch_equals_single_runs(llama, prompt, mode, budget):
    """Without a budget a row may need fewer tokens than its neighbour; here the padded row does: its padding fills it up."""
    if mode == "quant" and budget:
        budget = {"keep": 0.16}
    ids, mask = prompt(2, 80), torch.ones(2, 80, dtype=torch.long)
    ids[0, :50], mask[0, :50] = 0, 0
    method = ZipVL(tau=0.8, short=0, refresh=4, mode=mode, **budget)
    with laconic.compress(llama, method) as session:
        both = llama.generate(ids, attention_mask=mask, max_new_tokens=10, **GREEDY)
        counts = torch.stack([layer.lengths for layer in session.cache.compressed()])
    for row in (0, 1):
        with laconic.compress(llama, method) as session:
            alone = llama.generate(ids[row : row + 1, 50 * (1 - row) :], max_new_tokens=10, **GREEDY)
            own = torch.stack([layer.lengths for layer in session.cache.compressed()])
        got, want = (torch.stack(x.logits) for x in (both, alone))
        torch.testing.assert_close(got[:, row], want[:, 0], atol=1e-4, rtol=1e-4)
        assert torch.equal(counts[:, row], own[:, 0])


def test_a_budget_is_the_same_in_every_layer(llama, prompt):
    with laconic.compress(llama, ZipVL(keep=0.3, short=0)) as session:
        llama(prompt(2, 90))
    assert session.stats.entries == [27] * 4
    with laconic.compress(llama, ZipVL(tau=0.7, short=0)) as session:
        llama(prompt(2, 90))
    assert len(set(session.stats.entries)) > 1


@pytest.mark.filterwarnings("ignore:zipvl was asked")
def test_a_budget_of_bytes_says_how_many_get_four_bits(llama, prompt):
    high, low = (share_of_bytes(bits, 8, 4) for bits in (4, 2))
    keep = 0.25 * high + 0.75 * low
    with laconic.compress(llama, ZipVL(keep=keep, mode="quant", short=0)) as session:
        llama(prompt(1, 256))
    layers = list(session.cache.compressed())
    assert [[(part.bits, part.length) for part in layer.parts[:-1]] for layer in layers] == [[(4, 64), (2, 192)]] * 4
    assert session.stats.kv_bytes == pytest.approx(keep * session.stats.kv_bytes_full)
    with laconic.compress(llama, ZipVL(keep=low + 0.001, mode="quant", short=0)) as session:
        llama(prompt(1, 10))  # less than two tokens' worth of bytes, and not refused
    assert session.cache.seen == 10
    with (
        laconic.compress(llama, ZipVL(keep=0.05, mode="quant")),
        pytest.raises(BudgetError, match=f"{low:.3f} of the bytes"),
    ):
        llama(prompt(1, 64))


@pytest.mark.parametrize("mode", ["evict", "quant"])
def test_chunks_and_turns_let_old_and_new_compete(llama, prompt, mode):
    ids, more = prompt(2, 80), prompt(2, 11, seed=1)
    with laconic.compress(llama, ZipVL(tau=0.8, short=0, mode=mode)) as session:
        first = llama.generate(ids, prefill_chunk_size=27, max_new_tokens=4, **GREEDY).sequences
        early = [set(session.kept(layer).tolist()) for layer in range(4)]
        llama.generate(torch.cat([first, more], 1), past_key_values=session.cache, max_new_tokens=2, **GREEDY)
        late = [set(session.kept(layer).tolist()) for layer in range(4)]
    assert session.cache.seen == 80 + 4 + 11 + 1
    for a, b in zip(early, late, strict=True):
        assert {0, 94, 95} <= b  # sink, the last token of the turn's prompt, the decoded one
        if mode == "quant":
            assert b == set(range(96))
        else:
            assert a - b and b & a - {0} and not (set(range(83)) - a) & b  # some went, some stayed, none came back


def test_short_passes_attend_densely(llama, prompt):
    ids = prompt(1, 100)
    want = llama(ids).logits
    for short, dense in ((101, True), (100, False)):
        with laconic.compress(llama, ZipVL(tau=0.6, short=short)) as session:
            got = llama(ids).logits
        assert torch.allclose(got, want, atol=1e-4) == dense
        assert session.stats.achieved < 0.9  # the cache is shortened in any case


def test_protected_tokens_are_important(llama, prompt):
    with laconic.compress(llama, ZipVL(tau=0.4, short=0), protect=(10, 22)) as session:
        llama(prompt(2, 60))
    for layer in range(4):
        for row in range(2):
            assert set(range(10, 22)) <= set(session.kept(layer, 1, row).tolist())
    with laconic.compress(llama, ZipVL(keep=0.1, short=0), protect=(10, 22)), pytest.raises(BudgetError, match="12 tokens"):
        llama(prompt(2, 60))


def test_held_tokens_stay_whole(llama, prompt):
    with laconic.compress(llama, ZipVL(tau=0.7, short=0, refresh=3)) as session:
        llama(prompt(1, 50))
        before = [len(session.kept(layer)) for layer in range(4)]
        with session.hold():
            llama.generate(prompt(1, 70), past_key_values=session.cache, max_new_tokens=5, **GREEDY)
    assert [len(session.kept(layer)) - n for layer, n in enumerate(before)] == [24] * 4


def test_it_goes_alone_and_refuses_nonsense(llama):
    with pytest.raises(ConflictError, match="both claim the seam"):
        laconic.compress(llama, laconic.SnapKV(keep=0.5), ZipVL())
    for name, value in (("tau", 0.0), ("mode", "prune"), ("probes", (0, 5)), ("refresh", -1), ("short", -1)):
        with pytest.raises(ValueError, match=name):
            ZipVL(**{name: value})
