"""RazorAttention, line by line of its card's "must show"."""

import itertools
import math
import random

import pytest
import torch
from helpers.reference import slow_attend
from helpers.session_tools import head_entries

import laconic
from laconic.artifact import Artifact
from laconic.cache.heads import write
from laconic.fit.layer_probe import LayerProbe
from laconic.methods.cache.razorattention.method import RazorAttention
from laconic.ops.attend import attend
from laconic.tasks.text import corpus
from laconic.tasks.text.haystack import haystack
from laconic.tasks.text.needles import numbers, singles
from laconic.tasks.text.words import NOUNS

GREEDY = {"max_new_tokens": 6, "do_sample": False, "pad_token_id": 0}
SMALL = {"buffer": 10, "share": 1000.0}  # a buffer of ten, whatever the length


def watch(model, *passes):
    """Keys and values [layer] of all tokens that were fed, without compression."""
    found = {}

    def look(obs):
        found[obs.layer] = (obs.keys.clone(), obs.values.clone())

    with laconic.compress(model, LayerProbe(prefill=look, token=look)) as session:
        for number, ids in enumerate(passes):
            model(ids, past_key_values=session.cache if number else None)
    return found


# line 1
@pytest.mark.parametrize("parameters", [{"heads": "no"}, {"heads": "all", **SMALL}, {"heads": "no", "buffer": 56}])
def test_short_prompts_or_retrieval_heads_alone_change_nothing(llama, prompt, parameters):
    ids = prompt(2, 60)  # 60 = 56 + 4 sinks: the last length that stays whole
    want = llama(ids).logits
    with laconic.compress(llama, RazorAttention(**{"share": 1000.0, **parameters})) as session:
        got = llama(ids).logits
        torch.testing.assert_close(got, want, atol=1e-5, rtol=1e-5)
        assert session.stats.entries == [60.0] * 4
        step = prompt(2, 1, seed=5)
        after = llama(step, past_key_values=session.cache).logits
    torch.testing.assert_close(after, llama(torch.cat([ids, step], 1)).logits[:, -1:], atol=1e-5, rtol=1e-5)


# Algorithm 1 and line 8, over prefill, chunks and turns
@pytest.mark.parametrize("cuts", [(50,), (30, 20), (16, 1, 20, 13), (3, 47)])
def test_the_compensation_token_is_the_mean_of_all_that_is_gone(llama, prompt, cuts):
    ids = prompt(2, 50)
    whole = watch(llama, ids)
    with laconic.compress(llama, RazorAttention(heads="L0H1+L2H0", **SMALL)) as session:
        for number, piece in enumerate(ids.split(cuts, 1)):
            llama(piece, past_key_values=session.cache if number else None)
    kept = [0, 1, 2, 3, *range(40, 50)]
    for layer, (row, head) in itertools.product(session.cache.compressed(), itertools.product(range(2), range(2))):
        keys, values, bias, index = head_entries(layer, row, head)
        if (layer.number, head) in {(0, 1), (2, 0)}:
            assert index.tolist() == list(range(50)) and not bias.any()
            continue
        assert session.kept(layer.number, head, row).tolist() == kept
        at = index.tolist().index(-1)
        assert len(index) == 15 and float(bias[at]) == pytest.approx(math.log(36), rel=1e-6)
        if layer.number:  # what the layers below dropped has changed what this one reads
            continue
        for stored, all_of_them in ((keys, whole[0][0]), (values, whole[0][1])):
            torch.testing.assert_close(stored[at], all_of_them[row, head, 4:40].mean(0), atol=1e-5, rtol=1e-5)


# line 8, while decoding
def test_paper_code_counts_the_averaged_entry_once(llama, prompt):
    """The entry is the same mean; only its weight in attention is not."""
    own_entries = {}
    for paper_code in (False, True):
        with laconic.compress(llama, RazorAttention(heads="no", paper_code=paper_code, **SMALL)) as session:
            llama(prompt(1, 60))
        own_entries[paper_code] = head_entries(session.cache.layers[0], 0, 0)
    (keys, values, bias, index), (same_keys, same_values, none, _) = own_entries[False], own_entries[True]
    assert torch.equal(keys, same_keys) and torch.equal(values, same_values)
    assert bias[index < 0].exp().round().tolist() == [60 - 10 - 4] and not none.any()


@pytest.mark.parametrize("every", [1, 5])
def test_folding_while_decoding_equals_averaging_from_scratch(llama, prompt, every):
    ids, steps = prompt(1, 30), prompt(1, 10, seed=4)
    whole = watch(llama, torch.cat([ids, steps], 1))
    with laconic.compress(llama, RazorAttention(heads="L1H0", fold_on_decode=True, fold_every=every, **SMALL)) as session:
        llama(ids)
        for i in range(10):
            llama(steps[:, i : i + 1], past_key_values=session.cache)
    layer = next(session.cache.compressed())
    keys, values, bias, index = head_entries(layer, 0, 0)
    at = index.tolist().index(-1)
    assert float(bias[at]) == pytest.approx(math.log(26), rel=1e-6) and len(index) == 15
    torch.testing.assert_close(keys[at], whole[0][0][0, 0, 4:30].mean(0), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(values[at], whole[0][1][0, 0, 4:30].mean(0), atol=1e-4, rtol=1e-4)
    assert session.kept(1, 0).tolist() == list(range(40))


def test_without_folding_the_buffer_grows(llama, prompt):
    with laconic.compress(llama, RazorAttention(heads="no", **SMALL)) as session:
        llama(prompt(1, 30))
        for i in range(7):
            llama(prompt(1, 1, seed=i), past_key_values=session.cache)
    assert session.kept(0, 0).tolist() == [0, 1, 2, 3, *range(20, 37)]


def stored_head(d=8, n=40, equal=False, seed=0):
    """One head: queries, keys, values, and what Algorithm 1 stores of them with 4 sinks and a buffer of 10."""
    generator = torch.Generator().manual_seed(seed)
    q, k, v = (torch.randn(1, 1, size, d, generator=generator) for size in (7, n, n))
    if equal:
        k[:, :, 4 : n - 10] = k[:, :, 4:5]
    keep = [*range(4), *range(n - 10, n)]
    dropped = slice(4, n - 10)
    keys = torch.cat([k[:, :, keep], k[:, :, dropped].mean(2, keepdim=True)], 2)
    values = torch.cat([v[:, :, keep], v[:, :, dropped].mean(2, keepdim=True)], 2)
    bias = torch.zeros(1, 1, 15)
    bias[..., -1] = math.log(n - 14)
    return q, k, v, keys, values, bias


# lines 2 and 3
@pytest.mark.parametrize("equal", [True, False])
def test_the_normaliser_is_never_too_large_and_exact_for_equal_keys(equal):
    q, k, v, keys, values, bias = stored_head(equal=equal)
    got, lse = attend(q, keys, values, 0.35, bias=bias)
    want, true = slow_attend(q, k, v, 0.35)
    if equal:
        torch.testing.assert_close(got.double(), want, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(lse.double(), true, atol=1e-5, rtol=1e-5)
    else:
        assert bool((lse.double() < true).all())
        assert float((true - lse.double()).max()) > 0.05


# line 2, through the model: the cache that the method leaves, not one made by hand
def test_equal_tokens_in_the_middle_cost_nothing_without_positions(llama, prompt, monkeypatch):
    """With RoPE switched off, equal tokens in the first layer have equal keys and values: what it answers is exact."""
    ids = prompt(1, 40)
    ids[:, 4:30] = 7
    rotary = llama.model.rotary_emb
    original = rotary.forward

    def flat(x, position_ids):
        cos, sin = original(x, position_ids)
        return torch.ones_like(cos), torch.zeros_like(sin)

    monkeypatch.setattr(rotary, "forward", flat)
    outputs = []
    hook = llama.model.layers[0].self_attn.register_forward_hook(lambda m, a, o: outputs.append(o[0][:, -1].clone()))
    try:
        for method in (RazorAttention(heads="no", **SMALL), RazorAttention(heads="no", compensate=False, **SMALL), None):
            with laconic.compress(llama, *([method] if method else [])) as session:
                llama(ids)
                llama(prompt(1, 1, seed=8), past_key_values=session.cache)
    finally:
        hook.remove()
    compensated, dropped, full = outputs[1::2]
    torch.testing.assert_close(compensated, full, atol=1e-4, rtol=1e-4)
    assert (dropped - full).abs().max() > 1e-2


# line 4
def test_the_weight_equals_literal_copies_and_the_padded_channel():
    q, _, _, keys, values, bias = stored_head()
    got, lse = attend(q, keys, values, 0.35, bias=bias)
    copies = [torch.cat([x[:, :, :-1], x[:, :, -1:].expand(-1, -1, 26, -1)], 2) for x in (keys, values)]
    want, total = slow_attend(q, *copies, 0.35)
    torch.testing.assert_close(got.double(), want, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(lse.double(), total, atol=1e-5, rtol=1e-5)
    channel = torch.zeros(1, 1, 15, 1)
    channel[..., -1, 0] = math.log(26) / 0.35
    longer = torch.cat([q, torch.ones(1, 1, 7, 1)], -1), torch.cat([keys, channel], -1)
    padded, _ = attend(*longer, torch.cat([values, torch.zeros(1, 1, 15, 1)], -1), 0.35)
    torch.testing.assert_close(padded[..., :-1], got, atol=1e-5, rtol=1e-5)


# line 5
def test_compensation_lowers_the_output_error_of_a_trained_model(lm):
    """The next token's attention over the stored prompt, in the heads that are no retrieval heads."""
    model, tokenizer = lm
    error = {True: 0.0, False: 0.0}
    for seed in range(3):
        ids = torch.tensor([sample(tokenizer, seed)[0]])
        queries, whole = {}, {}

        def look(obs, queries=queries, whole=whole):
            past = slice(None, -1)
            queries[obs.layer] = obs.queries
            whole[obs.layer] = attend(obs.queries, obs.keys[:, :, past], obs.values[:, :, past], obs.scale)[0]

        with torch.inference_mode(), laconic.compress(model, LayerProbe(token=look)) as session:
            model(ids[:, :-1])
            model(ids[:, -1:], past_key_values=session.cache)
        for compensate in error:
            method = RazorAttention(heads="L1H0+L1H1+L3H0", buffer=64, share=1000.0, compensate=compensate)
            with torch.inference_mode(), laconic.compress(model, method) as session:
                model(ids[:, :-1])  # one pass: every layer has read what the uncompressed model reads
            for layer in session.cache.compressed():
                got, _ = layer.parts[0].attend(queries[layer.number], 32**-0.5, None)
                for head in {0, 1} - set(method.retrieval[layer.number]):
                    rows = slice(2 * head, 2 * head + 2)
                    error[compensate] += float((got[:, rows] - whole[layer.number][:, rows]).norm())
    assert 0 < error[True] < 0.8 * error[False]


# line 7
def test_as_many_heads_as_the_ratios_say(make_llama, tmp_path):
    model = make_llama(layers=7)
    generator = torch.Generator().manual_seed(0)
    echo, induction = (torch.rand(7, 2, generator=generator).tolist() for _ in range(2))
    path = tmp_path / "r.safetensors"
    Artifact.of("razorattention", "measured", model, {"echo": echo, "induction": induction}).save(path)
    flat = [(layer, head) for layer in range(7) for head in range(2)]

    def largest(scores, count):
        return set(sorted(flat, key=lambda lh: -scores[lh[0]][lh[1]])[:count])

    for share, other in ((0.14, 0.01), (0.5, 0.3), (1.0, 0.0), (0.0, 0.0)):
        method = laconic.create_method(f"razorattention:artifact={path},induction={share},echo={other}")
        method.attach(model)
        found = {(layer, head) for layer, row in enumerate(method.retrieval) for head in row}
        assert found == largest(induction, round(14 * share)) | largest(echo, round(14 * other))


# line 9
def test_stored_numbers_follow_the_formula(llama, prompt):
    n, retrieval = 64, 3
    with laconic.compress(llama, RazorAttention(heads="L0H0+L3H1+L3H0", buffer=11, share=1000.0)) as session:
        llama(prompt(1, n))
    numbers_stored = (retrieval * n + (8 - retrieval) * (4 + 1 + 11)) * 2 * 8
    assert session.stats.kv_bytes == 4 * numbers_stored


def test_the_published_rule_tends_to_3_125():
    method = RazorAttention(heads="no")
    for n in (10_000, 1_000_000):
        others = min(n, method._own(n, n, True) + 1)
        assert others == (4 + 4000 + 1 if n == 10_000 else 4 + n // 5 + 1)
    assert n / (0.15 * n + 0.85 * others) == pytest.approx(3.125, rel=1e-3)


def sample(tokenizer, seed, room=400, needles=4):
    """Random sentences, then prose, then one of the sentences again: (first part, its head, its value) as ids."""
    rng = random.Random(f"copy-{seed}")
    facts = singles(rng, rng.sample(NOUNS, needles), numbers(rng, needles)).turns

    def ids(text):
        return tokenizer.encode(text, add_special_tokens=False)

    hay = haystack(rng, corpus.lines("prose"), room, lambda text: len(ids(text)))
    again = rng.choice(facts)
    first = ids("\n".join([*(fact.gold for fact in facts), *hay]))
    return [tokenizer.bos_token_id, *first], ids(f"\n{again.prefix} "), ids(again.answers[0])


# line 10
def test_protecting_the_heads_found_keeps_the_copying_and_random_heads_do_not(lm):
    """testbed/lm does not copy strings of random tokens, so the string is a sentence with a random key and value."""
    model, tokenizer = lm
    samples = [sample(tokenizer, seed) for seed in range(5)]

    def accuracy(**heads):
        right = total = 0
        for first, head, value in samples:
            method = RazorAttention(buffer=32, share=1000.0, **heads)
            with torch.inference_mode(), laconic.compress(model, method) as session:
                model(input_ids=torch.tensor([first]), logits_to_keep=1)
                with session.hold():
                    logits = model(input_ids=torch.tensor([head + value]), past_key_values=session.cache).logits[0]
            guessed = logits[len(head) - 1 : -1].argmax(-1).tolist()
            right += sum(a == b for a, b in zip(guessed, value, strict=True))
            total += len(value)
        return right / total

    assert accuracy(heads="all") >= 0.95
    found = RazorAttention(induction=0.25, echo=0.0)
    found.attach(model)
    assert write(found.retrieval) == "L1H0+L1H1"
    others = [pair for pair in itertools.combinations(itertools.product(range(4), range(2)), 2) if pair != ((1, 0), (1, 1))]
    drawn = random.Random(0).sample(others, 6)
    by_chance = [accuracy(heads="+".join(f"L{layer}H{head}" for layer, head in pair)) for pair in drawn]
    assert accuracy(induction=0.25, echo=0.0) >= 0.95
    assert sum(by_chance) / len(by_chance) < 0.6
