"""The width of codes from bits, a budget or the model, shown with KIVI; and sequences that are packed separately."""

import pytest
import torch
from helpers.storage_tools import N, kinds, padded_batch

import laconic
from laconic.cache.quantiser import HeadSizes, Quantiser
from laconic.errors import BudgetError
from laconic.methods.cache.kivi import KIVI

SMALL = {"group": 8, "residual": 16}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("keep", "group", "bits"), [(0.9, 8, 8), (0.5, 8, 8), (0.26, 8, 4), (0.14, 16, 2)])
def test_keep_chooses_the_widest_codes_within_it(make_llama, prompt, dtype, keep, group, bits):
    model = make_llama(layers=1, hidden=64, kv_heads=4).to(dtype)  # heads of 16
    share = (bits + 32 / group) / (8 * dtype.itemsize)
    keep = keep if dtype == torch.float32 else min(1.0, 2 * keep)
    assert share <= keep
    with laconic.compress(model, KIVI(keep=keep, group=group, residual=16)) as session:
        model(prompt(1, 400))
    packed = next(session.cache.compressed()).parts[0]
    if keep == 1:
        assert packed.kind == "dense"
        return
    assert packed.bits == bits
    assert packed.values.nbytes / (packed.length * 64 * dtype.itemsize) == pytest.approx(share)


def test_other_budgets_are_shares_of_the_prompt(llama, prompt):
    per_token = 4 * 2 * 2 * 8 * 4
    for budget in ({"tokens": 40}, {"bytes": 40 * per_token}):
        with laconic.compress(llama, KIVI(**budget, **SMALL)) as session:
            llama(prompt(2, N))
        assert next(session.cache.compressed()).parts[0].bits == 8  # (8 + 4) / 32 of the bytes for 40 of 80 tokens
    with laconic.compress(llama, KIVI(tokens=N, **SMALL)) as session:
        llama(prompt(2, N))
    assert kinds(session) == [("dense", N)]


def test_the_authors_width_without_bits_and_budget(make_llama, prompt):
    for kv_heads, bits in ((4, 2), (2, 4), (1, 4)):
        model = make_llama(layers=1, kv_heads=kv_heads)
        with laconic.compress(model, KIVI(**SMALL)) as session:
            model(prompt(1, N))
        assert next(session.cache.compressed()).parts[0].bits == bits


def test_impossible_settings_are_refused(llama, prompt):
    with pytest.raises(ValueError, match="bits=5: choose 2, 3, 4, 8, or 16"):
        KIVI(bits=5)
    with pytest.raises(BudgetError, match=r"bits=4 and keep=0\.3 both"):
        KIVI(bits=4, keep=0.3)
    with pytest.raises(
        BudgetError, match=r"keep=0\.1 allows 0\.1 .* 0\.1875 of a 32-bit cache, the smallest share possible"
    ):
        laconic.compress(llama, KIVI(keep=0.1, **SMALL))  # (2 + 32 / 8) / 32
    with pytest.raises(BudgetError, match="smallest share"), laconic.compress(llama, KIVI(tokens=3, **SMALL)):
        llama(prompt(1, N))


def test_neutral_settings():
    assert KIVI(bits=16).neutral and KIVI(keep=1.0).neutral and KIVI(keep=1.0, bits=4).neutral
    assert not KIVI().neutral and not KIVI(bits=8).neutral and not KIVI(keep=0.5).neutral and not KIVI(tokens=9).neutral


def test_heads_are_read_from_the_model(make_llama):
    model = make_llama(layers=1, hidden=64, heads=8, kv_heads=2)
    assert HeadSizes.of(model) == HeadSizes(queries=8, kv=2, size=8, item=32)
    assert HeadSizes.of(model.bfloat16()) == HeadSizes(queries=8, kv=2, size=8, item=16)


class Calls(Quantiser):
    """Records what it is asked to pack."""

    name = "calls"

    def check(self, heads):
        self.calls = []

    def usual_bits(self, heads):
        return 4

    def bits_stored(self, bits, heads):
        return bits

    def store(self, parts, bits, prefill):
        self.calls.append(([(part.kind, part.length) for part in parts], bits, prefill))


def test_what_a_method_is_asked_to_pack(make_llama, prompt):
    model, method = make_llama(layers=1), Calls()
    with laconic.compress(model, method) as session:
        model(prompt(2, 20))
        model(prompt(2, 1), past_key_values=session.cache)
        model(prompt(2, 5), past_key_values=session.cache)
    assert method.calls == [([("dense", n)], 4, prefill) for n, prefill in ((20, True), (21, False), (26, True))]
    assert not next(session.cache.compressed()).evicted
    ids, mask = padded_batch(prompt)
    with laconic.compress(model, method):
        model(ids, attention_mask=mask)
    assert method.calls == [([("dense", n)], 4, True) for n in (N - 23, N)]
    with laconic.compress(model, laconic.SnapKV(tokens=30, window=4), method) as session:
        model(ids, attention_mask=mask)
        assert method.calls == []  # the choosing method may need the entries again
        model(ids[:, :1], attention_mask=torch.cat([mask, mask[:, -1:]], 1), past_key_values=session.cache)
    assert method.calls == [([("dense", 30)], 4, True)] * 2 + [([("dense", 31)], 4, False)] * 2
    assert kinds(session) == [("rows", 31)]
