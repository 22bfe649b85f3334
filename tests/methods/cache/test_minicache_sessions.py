"""MiniCache in sessions: padding, chunks, beams, saving, budgets."""

import pytest
import torch
from helpers.slow_minicache import GREEDY, merge, steps, vectors
from safetensors.torch import load_file, save_file

import laconic
from laconic import BudgetError, ConflictError
from laconic.cache.layer import CompressedLayer
from laconic.cache.parts.base import KINDS, DensePart
from laconic.cache.parts.pair import PairPart
from laconic.methods.cache.minicache import MiniCache


# what the cache requires of every method
def test_a_padded_batch_equals_single_runs(llama, prompt):
    ids, mask = prompt(2, 60), torch.ones(2, 60, dtype=torch.long)
    ids[0, :23], mask[0, :23] = 0, 0
    with laconic.compress(llama, MiniCache(buffer=4)) as session:
        both = llama.generate(ids, attention_mask=mask, **GREEDY)
    assert session.stats.entries == [59.5] * 4 and session.stats.achieved < 1
    for row in (0, 1):
        with laconic.compress(llama, MiniCache(buffer=4)):
            alone = llama.generate(ids[row : row + 1, 23 * (1 - row) :], **GREEDY)
        got, want = (torch.stack(x.logits) for x in (both, alone))
        torch.testing.assert_close(got[:, row], want[:, 0], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("bits", [None, 4])
def test_padding_changes_neither_thresholds_nor_ranges(bits):
    first, second = vectors(b=2, n=96, seed=6)
    real = torch.ones(2, 96, dtype=torch.bool)
    real[0, :32] = False
    for x in (first, second):
        x[0, :, :32] = 1e4 * torch.randn(2, 32, 8)
    merged, limits = merge(MiniCache(bits=bits), first, second, real)
    alone, own = merge(MiniCache(bits=bits), first[:1, :, 32:], second[:1, :, 32:])
    torch.testing.assert_close(limits[:1], own)
    places = alone.places[0] + 32
    assert set(places.tolist()) <= set(merged.places[0].tolist())
    if bits is not None:
        low, high = merged.directions[0, :, :64].amin(1), merged.directions[0, :, :64].amax(1)
        torch.testing.assert_close(low, alone.directions[0, :, :32].amin(1))
        torch.testing.assert_close(high, alone.directions[0, :, :32].amax(1))


@pytest.mark.parametrize("chunk", [16, 27, 79])
def test_chunks_and_turns(llama, prompt, chunk):
    ids, more = prompt(2, 80), prompt(2, 11, seed=1)
    with laconic.compress(llama, MiniCache(gamma=1.0, buffer=4)) as session:  # everything retained: exact whatever happens
        first = llama.generate(ids, prefill_chunk_size=chunk, **GREEDY).sequences
        talk = torch.cat([first, more], 1)
        second = llama.generate(talk, past_key_values=session.cache, **GREEDY)
        counts = {len(session.kept(i, h, b)) for i in range(4) for h in range(2) for b in range(2)}
    want = llama.generate(talk, **GREEDY)
    torch.testing.assert_close(torch.stack(second.logits), torch.stack(want.logits), atol=2e-5, rtol=2e-5)
    assert counts == {80 + 12 + 11 + 11}
    with laconic.compress(llama, MiniCache()) as session:
        llama.generate(ids, prefill_chunk_size=chunk, **GREEDY)
    assert [layer.parts[0].kind for layer in session.cache.compressed()] == ["dense", "dense", "pair", "pair"]
    assert session.stats.kv_bytes < 0.95 * session.stats.kv_bytes_full


def test_the_threshold_is_that_of_all_passes_of_the_prompt(llama, prompt, monkeypatch):
    original, seen = MiniCache.set_threshold, {}  # where the limits are -> distances of all passes

    def noted(self, distance, real, limits):
        seen.setdefault(limits.data_ptr(), []).append(distance.clone())
        original(self, distance, real, limits)

    monkeypatch.setattr(MiniCache, "set_threshold", noted)
    with laconic.compress(llama, MiniCache(gamma=0.3)) as session:
        llama.generate(prompt(1, 80), prefill_chunk_size=27, **GREEDY)
        state = list(session.cache.compressed())[3].state["merging"]
    assert [len(passes) for passes in seen.values()] == [3, 3]  # keys and values
    for which, passes in enumerate(seen.values()):
        low, high = float(torch.cat(passes, 1).min()), float(torch.cat(passes, 1).max())
        want = torch.tensor([low, high, high - 0.3 * (high - low)])
        torch.testing.assert_close(state[0, which], want)


def test_beams(llama, prompt):
    """The same tokens fed by hand to copies of the winning beam give its scores."""
    ids, beams = prompt(2, 40), GREEDY | {"num_beams": 3, "output_logits": False, "output_scores": True}
    with laconic.compress(llama, MiniCache(buffer=2)) as session:
        got = llama.generate(ids, **beams)
    assert all(part.lengths.shape == (6, 2) for layer in session.cache.compressed() for part in layer.parts)
    for row in range(2):
        new = got.sequences[row, 40:]
        with laconic.compress(llama, MiniCache(buffer=2)) as session:
            logits = [llama(ids[row : row + 1]).logits[0, -1]]
            for token in new[:-1]:
                logits.append(llama(token.view(1, 1), past_key_values=session.cache).logits[0, -1])
        own = sum(float(x.log_softmax(-1)[token]) for x, token in zip(logits, new, strict=True))
        assert own / len(new) == pytest.approx(float(got.sequences_scores[row]), abs=1e-4)


@pytest.mark.parametrize("bits", [None, 4])
def test_a_saved_pair_continues_where_it_was(llama, prompt, tmp_path, bits):
    ids, more = prompt(2, 80), prompt(2, 70, seed=3)

    def run(saved):
        out = []
        with laconic.compress(llama, MiniCache(bits=bits)) as session:
            llama(ids)
            for i in range(70):
                if saved and i in (0, 40):
                    for number, layer in enumerate(session.cache.compressed()):
                        parts = []
                        for place, part in enumerate(layer.parts):
                            file = tmp_path / f"{number}-{place}.safetensors"
                            save_file(part.tensors(), file)
                            parts.append(KINDS[part.kind].from_tensors(load_file(file)))
                            parts[-1].link(layer)
                        layer.parts = parts
                out.append(llama(more[:, i : i + 1], past_key_values=session.cache).logits)
        return torch.cat(out, 1), session.cache.nbytes

    (want, size), (got, again) = run(False), run(True)
    torch.testing.assert_close(got, want, atol=1e-6, rtol=1e-6)
    assert size == again


def test_bf16(make_llama, prompt):
    model = make_llama().to(torch.bfloat16)
    ids, more = prompt(2, 40), prompt(2, 3, seed=1)
    want, _ = steps(model, ids, MiniCache(keep=1.0), more)
    got, session = steps(model, ids, MiniCache(gamma=1.0, buffer=1), more)
    assert all((a - b).float().norm() < 0.03 * b.float().norm() for a, b in zip(got, want, strict=True))
    assert all(part.padded()[0].dtype == torch.bfloat16 for layer in session.cache.compressed() for part in layer.parts)


# bits
def test_four_bits_are_smaller_and_close(llama, prompt):
    ids, more = prompt(1, 256), prompt(1, 4, seed=1)
    want, plain = steps(llama, ids, MiniCache(), more)
    got, packed = steps(llama, ids, MiniCache(bits=4), more)
    error = max(float((a - b).norm() / b.norm()) for a, b in zip(got[1:], want[1:], strict=True))
    assert 0 < error < 0.35
    pair, same = ([layer.parts[0] for layer in session.cache.compressed()][2] for session in (packed, plain))
    directions = 256 * 2 * 8
    assert same.nbytes - pair.nbytes == 2 * directions * 4 - (directions * 4 // 8) * 2 - (4 * 2 * 8 + 256 * 2) * 2 * 2


# budgets
def test_the_budget_determines_how_many_pairs(make_llama, prompt):
    model = make_llama(layers=6)
    share = MiniCache().merged_share(8, 2, 4)
    assert share == pytest.approx((8 * 4 + 2 * 4 + 0.05 * (2 * 8 * 4 + 4 / 2)) / (2 * 8 * 4))
    for keep, pairs in ((1.0, 0), (0.95, 1), (0.85, 2), (0.7, 3)):
        assert 1 - pairs * (1 - share) / 3 <= keep
        assert pairs == 0 or 1 - (pairs - 1) * (1 - share) / 3 > keep
        with laconic.compress(model, MiniCache(keep=keep)) as session:
            model(prompt(1, 100))
        merged = [layer.parts[0].kind == "pair" for layer in session.cache.compressed()]
        assert merged == [False] * (6 - 2 * pairs) + [True] * 2 * pairs
        assert session.stats.kv_bytes <= (keep + 0.02) * session.stats.kv_bytes_full
    with laconic.compress(model, MiniCache(tokens=85)) as session:
        model(prompt(1, 100))
        for _ in range(40):  # 85 of 140 tokens is less than merging can reach: decoding continues with the prompt's pairs
            model(prompt(1, 1), past_key_values=session.cache)
    assert [layer.parts[0].kind for layer in session.cache.compressed()].count("pair") == 4
    with laconic.compress(model, MiniCache(keep=0.68)) as session:
        model(prompt(1, 10))  # 6.8 tokens
    assert [layer.parts[0].kind for layer in session.cache.compressed()].count("pair") == 6


def test_impossible_budgets_name_the_smallest_share(make_llama, prompt):
    model = make_llama(layers=6)
    with pytest.raises(BudgetError, match=r"leaves 0\.677"):
        laconic.compress(model, MiniCache(keep=0.5))
    with pytest.raises(BudgetError, match=r"from layer 4 on leaves 0\.892"):
        laconic.compress(model, MiniCache(keep=0.8, start=3))
    with laconic.compress(model, MiniCache(tokens=10)), pytest.raises(BudgetError, match=r"asks for 0\.100"):
        model(prompt(1, 100))


@pytest.mark.parametrize(("layers", "start", "first"), [(6, None, 4), (5, None, 2), (8, 3, 4), (4, 0, 0), (7, None, 4)])
def test_pairs_begin_at_an_even_layer(make_llama, prompt, layers, start, first):
    model = make_llama(layers=layers)
    with laconic.compress(model, MiniCache(start=start)) as session:
        model(prompt(1, 40))
    merged = [layer.parts[0].kind == "pair" for layer in session.cache.compressed()]
    last = layers - layers % 2
    assert merged == [first <= i < last for i in range(layers)]


def test_other_methods_and_wrong_parameters_are_refused(llama):
    with pytest.raises(ConflictError, match="both claim the seam"):
        laconic.compress(llama, laconic.SnapKV(keep=0.5), MiniCache())
    with pytest.raises(ValueError, match="start=9"):
        laconic.compress(llama, MiniCache(start=9))
    for wrong in ({"t": 1.5}, {"gamma": -0.1}, {"retention": "best"}, {"bits": 5}, {"buffer": 0}, {"start": -1}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            MiniCache(**wrong)


def test_the_first_layer_waits_for_the_second(llama, prompt, monkeypatch):
    """Nothing is merged before the second layer's attention: its neighbour then still holds its true keys."""
    waiting = []
    original = CompressedLayer.attend

    def attend(self, q, keys, values, scale, softcap):
        if self.number == 3:
            first = list(self.cache.compressed())[2]
            waiting.append([type(part) for part in first.parts])
        return original(self, q, keys, values, scale, softcap)

    monkeypatch.setattr(CompressedLayer, "attend", attend)
    steps(llama, prompt(1, 20), MiniCache(buffer=1), prompt(1, 1))
    assert waiting == [[DensePart], [PairPart, DensePart]]
