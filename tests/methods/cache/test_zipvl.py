"""ZipVL, line by line of its card's "must show"."""

import itertools
import math

import pytest
import torch
from helpers.reference import left_padding, observe, slow_attend, slow_logits, slow_top
from helpers.slow_zipvl import GREEDY, places_of, slow_important, slow_prefix, slow_received

import laconic
from laconic.methods.cache.zipvl import ZipVL, received, smallest_prefix
from laconic.ops.quantise import quantise_keys, quantise_values
from laconic.tasks.text.chat import gold_ids, prompt_ids
from laconic.tasks.text.retrieval import make


def task_ids(tokenizer, seed, task="multikey"):
    sample = make(task, seed, 512, tokenizer)
    context, question = prompt_ids(sample, tokenizer)
    return torch.tensor([context + question]), torch.tensor([gold_ids(sample, tokenizer)])


# line 1
@pytest.mark.parametrize("parameters", [{"tau": 1.0}, {"keep": 1.0}, {"tau": 1.0, "refresh": 3}])
def test_everything_important_is_the_model_itself(llama, prompt, parameters):
    ids = prompt(2, 90)
    want = llama.generate(ids, max_new_tokens=8, **GREEDY)
    with laconic.compress(llama, ZipVL(short=0, **parameters)) as session:
        got = llama.generate(ids, max_new_tokens=8, **GREEDY)
    torch.testing.assert_close(torch.stack(got.logits), torch.stack(want.logits), atol=1e-5, rtol=1e-5)
    assert session.stats.achieved == 1 and session.stats.kv_bytes == session.stats.kv_bytes_full


def test_everything_important_in_four_bits_differs_by_rounding_only(llama, prompt, record):
    ids = prompt(2, 90)
    want = llama(ids).logits
    with laconic.compress(llama, ZipVL(tau=1.0, mode="quant", short=0)) as session:
        got = llama(ids).logits
    torch.testing.assert_close(got, want, atol=1e-5, rtol=1e-5)
    for layer in session.cache.compressed():
        _, keys, values, _ = record[layer.number][0]
        stored = layer.restored()
        assert [part.bits for part in layer.parts[:-1]] == [4]
        assert torch.equal(stored[0], quantise_keys(keys, 4).dequantise())
        assert torch.equal(stored[1], quantise_values(values, 4).dequantise())
        step = (keys.amax(2) - keys.amin(2)).amax() / 15
        assert 0 < (stored[0] - keys).abs().max() < 0.51 * step


# line 2
@pytest.mark.parametrize("tau", [0.3, 0.9, 0.975, 0.999])
def test_the_count_is_the_smallest_prefix(tau):
    mass = torch.rand(3, 50, generator=torch.Generator().manual_seed(0)) ** 3
    assert smallest_prefix(mass, tau).tolist() == [slow_prefix(row.tolist(), tau) for row in mass]
    counts = [smallest_prefix(mass, t / 100) for t in range(1, 101)]
    assert all(bool((b >= a).all()) for a, b in itertools.pairwise(counts))
    hot = torch.full((1, 200), 1e-6)
    hot[0, [3, 50, 51, 120]] = 1.0
    assert smallest_prefix(hot, 0.975).item() == 4
    for n in (40, 200, 333):
        assert smallest_prefix(torch.full((1, n), 1 / n), tau).item() == math.ceil(tau * n - 1e-9)


# line 3
@pytest.mark.parametrize("t", [21, 9])
def test_scores_equal_exact_column_sums(t):
    obs = observe(n=21, t=t, hkv=2, h=4)
    tokens = torch.arange(21 - t, 21).expand(2, -1)
    mass, probes = received(obs.queries, tokens, torch.ones(2, t, dtype=torch.bool), obs)
    want_mass, want_probes = slow_received(obs, [list(range(t))] * 2)
    torch.testing.assert_close(mass.double(), torch.tensor(want_mass, dtype=torch.float64), atol=1e-5, rtol=1e-5)
    assert probes.int().tolist() == want_probes
    if t == 21:
        assert probes[0].tolist() == [21 - j for j in range(21)]
        assert mass.sum(-1).tolist() == pytest.approx([21, 21])


def test_probes_are_the_latest_and_drawn_ones_and_rows_do_not_look_at_each_other():
    seen = observe(n=40, valid=left_padding(40, 13, 0))
    method = ZipVL(probes=(6, 5), seed=3)
    both = places_of(method, seen)
    for b, pad in ((0, 13), (1, 0)):
        assert both[b][-6:] == list(range(34, 40)) and len(set(both[b])) == 11 and min(both[b]) >= pad
        alone = places_of(method, observe(b=1, n=40 - pad))[0]
        assert [place - pad for place in both[b]] == alone
    assert places_of(ZipVL(probes=(6, 5), seed=4), seen)[1] != both[1]
    assert places_of(ZipVL(probes=(64, 64)), seen) == [list(range(13, 40)), list(range(40))]


@pytest.mark.parametrize("tau", [0.4, 0.7, 0.95])
@pytest.mark.parametrize("padded", [False, True])
def test_the_important_set_equals_the_loop(tau, padded):
    valid = left_padding(40, 13, 0) if padded else None
    seen = observe(n=40, valid=valid)
    method = ZipVL(tau=tau, probes=(6, 5))
    got = method.important(seen)
    mass, probes = slow_received(seen, places_of(method, seen))
    for b in range(2):
        real = [j for j in range(40) if valid is None or valid[b, j]]
        assert got[b].nonzero()[:, 0].tolist() == slow_important(mass[b], probes[b], tau, real)


def test_128_probes_find_what_all_rows_find_clearly_better_than_chance(lm):
    """The same number p of tokens from 128 and from all rows, in the first layer, whose attention is the same in both."""
    model, tokenizer = lm
    for seed in (700_000, 700_001):
        kept = []
        for probes in ((64, 64), (10_000, 0)):
            with torch.inference_mode(), laconic.compress(model, ZipVL(keep=0.3, probes=probes)) as session:
                model(task_ids(tokenizer, seed)[0])
            kept.append(set(session.kept(0).tolist()))
        a, b = kept
        overlap, chance = len(a & b) / len(a | b), 0.3 / (2 - 0.3)
        assert len(a) == len(b) and overlap > 1.5 * chance, (overlap, chance)


# line 4
def test_normalisation_takes_away_the_head_start_of_early_tokens():
    n = 200
    obs = observe(b=1, n=n)
    obs.queries.zero_()  # uniform causal attention
    mass, probes = received(obs.queries, torch.arange(n)[None], torch.ones(1, n, dtype=torch.bool), obs)
    normal = mass / probes
    for j in range(0, n, 17):
        harmonic = sum(1 / (i + 1) for i in range(j, n))
        assert mass[0, j].item() == pytest.approx(harmonic, rel=1e-4)
        assert normal[0, j].item() == pytest.approx(harmonic / (n - j), rel=1e-4)
    assert bool((mass[0, 1:] < mass[0, :-1]).all())
    # between the quarters: 4.8 times against 1.6, what rows of different length leave
    assert mass[0, 50] > 4.5 * mass[0, 150] and normal[0, 50] < 1.7 * normal[0, 150]


# line 5
@pytest.mark.parametrize("padded", [False, True])
def test_narrowed_attention_equals_a_dense_mask(llama, prompt, record, padded):
    n, pad = 60, 40 if padded else 0
    ids, mask = prompt(2, n), torch.ones(2, n, dtype=torch.long)
    ids[0, :pad], mask[0, :pad] = 0, 0
    with laconic.compress(llama, ZipVL(tau=0.6, short=0)) as session:
        llama(ids if padded else ids[:1], attention_mask=mask if padded else None)
    for layer in range(4):
        q, keys, values, out = record[layer][0]
        for b in range(q.shape[0]):
            chosen = session.kept(layer, 0, b)
            assert 2 < len(chosen) < n - pad * (1 - b) and chosen[-1] == n - 1 and chosen[0] == pad * (1 - b)
            own = slice(b, b + 1)
            want = slow_attend(
                q[own][:, :, chosen], keys[own][:, :, chosen], values[own][:, :, chosen], 8**-0.5, causal=True
            )[0]
            torch.testing.assert_close(out[b, :, chosen].double(), want[0], atol=1e-5, rtol=1e-5)
            others = torch.ones(n, dtype=torch.bool)
            others[chosen] = False
            assert not out[b][:, others].any()


def test_other_tokens_travel_on(llama, prompt):
    """A token that is unimportant in one layer may be important in the next: all layers run on all of them."""
    with laconic.compress(llama, ZipVL(tau=0.5, short=0)) as session:
        logits = llama(prompt(1, 60)).logits
    assert logits.shape[1] == 60 and bool(logits.isfinite().all())
    kept = [set(session.kept(layer).tolist()) for layer in range(4)]
    assert any(deep - early for early, deep in itertools.pairwise(kept))
    assert session.stats.prefill_flops < session.stats.prefill_flops_full + 2 * 97 * 32 * 59


# line 6
def test_bytes(make_llama, prompt):
    model = make_llama().to(torch.bfloat16)
    ids, per_entry = prompt(1, 128), 2 * 2 * 8 * 2
    with laconic.compress(model, ZipVL(tau=0.7, short=0)) as evict:
        model(ids)
    with laconic.compress(model, ZipVL(tau=0.7, short=0, mode="quant")) as quant:
        model(ids)
    for i, (a, b) in enumerate(zip(evict.cache.compressed(), quant.cache.compressed(), strict=True)):
        p = int(evict.stats.entries[i])
        assert a.nbytes == p * per_entry
        assert [(part.kind, part.length) for part in b.parts[-1:]] == [("dense", 0)] and b.stored == 128
        assert b.parts[0].length == p  # prefill is the same, so are the sets
        size = 0
        for part, bits in zip(b.parts, (4, 2), strict=False):
            m = part.length
            tiles, groups = -(-m // 32), -(-m // 64)
            codes = tiles * 32 * per_entry // 2 * bits // 8  # filled up to tiles of 32 tokens
            size += codes + groups * 2 * 8 * 4 + tiles * 32 * 2 * 4  # a zero and a step of 2 bytes each per group
        assert b.nbytes == size
    exact = 128 * per_entry
    p = int(evict.stats.entries[0])
    assert (
        next(quant.cache.compressed()).nbytes <= exact * (p * 4 / 16 + (128 - p) * 2 / 16) / 128 * 1.3 + 128 * 2 * 4 + 2048
    )


# line 7
def test_layers_and_prompts_differ_in_what_they_need(lm):
    model, tokenizer = lm

    def entries(ids):
        with torch.inference_mode(), laconic.compress(model, ZipVL()) as session:
            model(ids)
        return [x / ids.shape[1] for x in session.stats.entries]

    needles = entries(task_ids(tokenizer, 700_000)[0])
    blank = entries(torch.full((1, 512), tokenizer.encode("\n", add_special_tokens=False)[0]))
    assert max(needles) - min(needles) > 0.05
    assert needles != blank


# line 8
def test_adaptive_counts_hold_the_attention_of_the_layer_that_needs_most():
    """Made-up layers: all queries of the first look at 8 columns, those of the second everywhere. A fixed ratio with the
    same mean drops attention of the second. (Lower KL on a model, was not found: see docs/systems/zipvl.md.)"""
    seen = [observe(b=1, n=80, seed=seed, targets=[80]) for seed in (0, 1)]
    seen[0].queries.mul_(0.3).add_(1.0)
    seen[0].keys[:, :, 5:80:10] = 2.0
    seen[1].queries *= 0.3
    adaptive = [int(ZipVL(tau=0.9).important(layer).sum()) for layer in seen]
    mean = sum(adaptive) // 2
    assert adaptive[0] < 0.5 * mean

    def held(counts):
        shares = []
        for layer, count in zip(seen, counts, strict=True):
            method = ZipVL(tau=0.9)
            mass = slow_received(layer, places_of(method, layer))[0][0]
            chosen = slow_top(method.ranked(layer)[0][0].tolist(), count)
            shares.append(sum(mass[j] for j in chosen) / sum(mass))
        return min(shares)

    assert held(adaptive) > held([mean, mean]) + 0.1


def answer_kl(model, method, prompt, answer):
    """KL to the uncompressed model's next-token distributions over the given answer."""
    rows = []
    for each in (ZipVL(keep=1.0), method):
        with torch.inference_mode(), laconic.compress(model, each) as session:
            model(prompt)
            with session.hold():
                rows.append(model(answer, past_key_values=session.cache).logits[0].log_softmax(-1))
    return float((rows[0].exp() * (rows[0] - rows[1])).sum(-1).mean())


def test_what_is_demoted_is_not_lost(lm):
    """The same choice on a model that reads: two bits for the others keep what evicting them loses."""
    model, tokenizer = lm
    pairs = [task_ids(tokenizer, 700_000 + seed) for seed in range(3)]
    evict, quant = (
        sum(answer_kl(model, ZipVL(tau=0.9, mode=mode, short=10_000), *pair) for pair in pairs)
        for mode in ("evict", "quant")
    )
    assert 0 < quant < 0.2 * evict


# line 9
def test_a_refresh_with_everything_important_changes_nothing(llama, prompt):
    ids = prompt(2, 40)
    want = llama.generate(ids, max_new_tokens=110, **GREEDY)
    with laconic.compress(llama, ZipVL(tau=1.0, short=0)) as session:
        got = llama.generate(ids, max_new_tokens=110, **GREEDY)
    torch.testing.assert_close(torch.stack(got.logits), torch.stack(want.logits), atol=2e-5, rtol=2e-5)
    assert session.stats.achieved == 1
    assert [int(layer.state["chosen_at"][0]) for layer in session.cache.compressed()] == [140] * 4


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["evict", "quant"])
def test_refreshes_come_in_time_and_equal_the_loop(llama, prompt, record, mode):
    """Every 5 tokens the last 5 queries choose among all that is stored; what was evicted never comes back."""
    ids, more = prompt(1, 30), prompt(1, 12, seed=1)
    kept, sizes = [], []
    with laconic.compress(llama, ZipVL(tau=0.8, short=0, refresh=5, mode=mode)) as session:
        llama(ids)
        for i in range(12):
            before = [layer.restored() for layer in session.cache.compressed()] if i == 4 else None
            llama(more[:, i : i + 1], past_key_values=session.cache)
            kept.append([set(session.kept(layer).tolist()) for layer in range(4)])
            sizes.append([layer.parts[0].length for layer in session.cache.compressed()])
            if before is None:
                continue
            for number, layer in enumerate(session.cache.compressed()):
                q = torch.cat([p[0] for p in record[number][-5:]], 2)
                keys = torch.cat([before[number][0], record[number][-1][1]], 2)
                index = torch.cat(
                    [before[number][2].get("index", torch.arange(34).expand(1, 2, -1))[0, 0], torch.tensor([34])]
                )
                n = keys.shape[2]
                mass, probes = [0.0] * n, [0] * n
                for c in range(5):
                    visible = [j for j in range(n) if index[j] <= 30 + c]
                    logits = slow_logits(q[:, :, c : c + 1], keys[:, :, visible], 8**-0.5)[0, :, 0].softmax(-1).mean(0)
                    for a, j in zip(logits.tolist(), visible, strict=True):
                        mass[j], probes[j] = mass[j] + a, probes[j] + 1
                order = sorted(range(n), key=lambda j: int(index[j]))
                chosen = slow_important([mass[j] for j in order], [probes[j] for j in order], 0.8)
                want = {int(index[order[j]]) for j in chosen}
                if mode == "evict":
                    assert kept[-1][number] == want
                else:
                    assert set(layer.parts[0].padded()[2]["index"][0, 0].tolist()) == want
    for layer in range(4):
        if mode == "evict":
            gone = [{t for t in range(31 + i) if t not in kept[i][layer]} for i in range(12)]
            assert all(a <= b for a, b in itertools.pairwise(gone))
            changed = [i for i in range(1, 12) if gone[i] != gone[i - 1]]
        else:
            assert kept[-1][layer] == set(range(42))
            changed = [i for i in range(1, 12) if sizes[i][layer] != sizes[i - 1][layer]]
        assert set(changed) <= {4, 9} and 4 in changed
