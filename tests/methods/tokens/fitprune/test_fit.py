"""The search for FitPrune's deletions; "line n" is what the card must show."""

import json
from itertools import pairwise

import pytest
import torch
from helpers.vision_exact import embedded
from helpers.vision_tools import inputs as random_inputs
from hypothesis import given as drawn
from hypothesis import strategies as st

from laconic import UnsupportedModelError, compress
from laconic.artifact import Artifact
from laconic.fit import Trainer
from laconic.fit import images as images
from laconic.methods.tokens.fitprune import fit as fitprune
from laconic.methods.tokens.fitprune.fit import FitPruneFit, Search, candidates, macs, stopped
from laconic.methods.tokens.fitprune.method import FitPrune, shares_left
from laconic.testbed.vlm_model import build_processor, build_tokenizer

SHIPPED = {50: 403, 60: 449, 80: 514, 90: 539}


@pytest.fixture(scope="module")
def processor():
    return build_processor(build_tokenizer())


@pytest.fixture(scope="module")
def search(vlm):
    return Search(vlm, [random_inputs([(2, 8), (4, 3)], seed=1), random_inputs([(2, 6)], seed=2)])


@pytest.mark.parametrize(("reduction", "saved"), [(50, 49.7), (60, 59.7), (80, 79.7), (90, 89.7)])
def test_published_deletions_save_what_is_published(reduction, saved):
    """line 2, by the card's formula: deletion inside a layer"""
    data = Artifact.load("fitprune-llava-1.5-7b").data["fits"]
    deleted = [round(576 * share) for share in next(f for f in data if f["reduction"] == reduction)["deleted"]]
    assert sum(deleted) == SHIPPED[reduction]
    entering, leaving, left = [], [], 576
    for number in deleted:
        entering.append(left)
        left -= number
        leaving.append(left)
    d, m = 4096, 11008
    cost = macs(entering, leaving, 3 * d * d, d * d + 3 * d * m, d)
    full = macs([576] * 32, [576] * 32, 3 * d * d, d * d + 3 * d * m, d)
    assert round(100 * (1 - cost / full), 1) == saved


@drawn(st.integers(2, 30), st.floats(0, 1), st.floats(0.5, 1.5))
def test_candidates_are_the_longest_prefix_that_keeps_the_mass(n, alpha, drift):
    """line 4"""
    generator = torch.Generator().manual_seed(n)
    got = torch.rand(n, generator=generator, dtype=torch.float64)
    reference = float(got.sum()) * drift
    order = sorted(range(n), key=lambda i: float(got[i]))
    longest = 0
    for length in range(n):
        if float(got[order[length:]].sum()) >= reference * (1 - alpha) - 1e-12:
            longest = length
    spared = candidates(got, reference, alpha)
    assert abs(int(spared.sum()) - longest) <= (1 if drift == 1 else 0)
    assert spared.nonzero()[:, 0].tolist() == sorted(order[: int(spared.sum())])


def test_alpha_zero_deletes_nothing_and_one_nearly_everything(search):
    """line 4"""
    assert search.sweep(0.0) == [[144] * 8] * 3
    got = torch.rand(144, dtype=torch.float64)
    assert int(candidates(got, float(got.sum()), 1.0).sum()) == 143
    assert all(row[1] < 15 for row in search.sweep(1.0))


def test_deletions_rise_with_alpha(search):
    """line 5: exactly so at the first layer; over all layers (states are pruned on the way) up to small violations"""
    swept = [search.sweep(alpha) for alpha in (0.0, 0.1, 0.3, 0.5, 0.7, 0.9)]
    for sample in range(3):
        first = [rows[sample][1] for rows in swept]
        assert first == sorted(first, reverse=True)
        last = [rows[sample][-1] for rows in swept]
        assert all(b <= a + 3 for a, b in pairwise(last))


@pytest.mark.parametrize("reduction", [20, 50, 70])
def test_the_search_meets_the_budget_with_the_smallest_alpha(search, reduction):
    """line 6; rounding down the means may delete up to one token per layer less"""
    alpha, deleted = search.fit(1 - reduction / 100)
    slack = [max(0, d - 1 / 144) for d in deleted]
    got = search.share_of_macs(deleted)
    assert got <= 1 - reduction / 100 + search.share_of_macs(slack) - got + 1e-9
    assert all(abs(144 * d - round(144 * d)) < 1e-9 for d in deleted)
    budget = (1 - reduction / 100) * search.macs([144] * 8)
    assert search.reached(search.sweep(alpha), budget) is not None
    lower = [a for a in search._swept if 0 < a < alpha - 1e-9]
    assert all(search.reached(search.sweep(a), budget) is None for a in lower if alpha - a <= 2 * fitprune.STEP)
    used = [i for i, d in enumerate(deleted) if d]
    assert search.reached(search.sweep(alpha), budget) >= max(used) + 1  # none after the layer where the forecast was met


def test_the_sweep_equals_a_slow_one(vlm):
    """Totals, candidates and deletions of one sample, from attention maps written out."""
    given = random_inputs([(2, 5)], seed=3)
    alpha = 0.4
    got = Search(vlm, [given]).sweep(alpha)[0]
    whole = list(slow(vlm, given, None))
    want, totals = [144], [(float(c.sum()), float(s.sum())) for c, s in whole]
    for left, _ in slow(vlm, given, (alpha, totals)):
        want.append(left)
    assert got == want[:8]


def slow(model, given, prune):
    """Layer by layer with eager attention; without `prune` the (cross, self) of each layer, else the tokens left."""
    stack = model.model.language_model

    hidden, visual = embedded(model, given)
    positions = torch.arange(hidden.shape[1])
    before = stack.config._attn_implementation
    stack.set_attn_implementation("eager")
    try:
        for i, layer in enumerate(stack.layers):
            n = hidden.shape[1]
            causal = torch.full((n, n), float("-inf")).triu(1)[None, None]
            phases = stack.rotary_emb(hidden, positions[None])
            normed = layer.input_layernorm(hidden)
            _, maps = layer.self_attn(normed, position_embeddings=phases, attention_mask=causal)
            hidden = layer(hidden, attention_mask=causal, position_embeddings=phases)
            peak = maps[0].amax(0).double()
            at = visual.nonzero()[:, 0]
            text = torch.tensor([t for t in range(n) if t > int(at[-1])])
            cross, own = peak[text][:, at].mean(0), peak[at][:, at].mean(0)
            if prune is None:
                yield cross, own
                continue
            alpha, totals = prune
            gone = set(range(len(at)))
            for sums, whole in ((cross, totals[i][0]), (own, totals[i][1])):
                order = sums.argsort(stable=True).tolist()
                k = max(j for j in range(len(at)) if j == 0 or float(sums[order[j:]].sum()) >= whole * (1 - alpha))
                gone &= set(order[:k])
            stays = torch.tensor([t for t in range(n) if not visual[t] or at.tolist().index(t) not in gone])
            hidden, visual, positions = hidden[:, stays], visual[stays], positions[stays]
            yield int(visual.sum()), None
    finally:
        stack.set_attn_implementation(before)


def test_an_artifact_from_drawn_scenes_runs(vlm, processor, tmp_path):
    said = []
    made = Trainer(FitPruneFit(samples=3, batch_size=2, reductions=(50, 95)), vlm, processor, log=said.append).run()
    assert [f["reduction"] for f in made.data["fits"]] == [50] and "95 % of the FLOPs cannot be saved" in said[-1]
    assert made.settings["samples"] == 3
    path = tmp_path / "r.safetensors"
    made.save(path)
    with compress(vlm, FitPrune(artifact=str(path), reduction=50)) as session:
        vlm(**random_inputs([(3, 9)]))
    left = [round(144 * share) for share in shares_left(made.data["fits"][0]["deleted"])]
    assert [session.stats.visual[i] for i in range(8)] == left


def test_samples_with_unequal_images_give_shares(search):
    before, search.whole = search.whole, [144, 144, 72]
    try:
        assert search.deleted([[144, 100], [144, 144], [72, 36]]) == pytest.approx([(44 / 144 + 0 + 0.5) / 3, 0])
    finally:
        search.whole = before
    assert search.deleted([[144, 100], [144, 144], [144, 143]]) == [15 / 144, 0]
    assert stopped([9, 5, 3, 1], 2) == [9, 5, 3, 3]


def test_bad_input(vlm, processor, tmp_path):
    with pytest.raises(ValueError, match="reserved for evaluation"):
        Trainer(FitPruneFit(samples=2, seed=999_999), vlm, processor).run()
    with pytest.raises(UnsupportedModelError, match="does not prepare images"):
        Trainer(FitPruneFit(samples=1), vlm, processor.tokenizer).run()
    file = tmp_path / "samples.jsonl"
    file.write_text(json.dumps({"question": "What?"}) + "\n")
    with pytest.raises(ValueError, match="line 1"):
        Trainer(FitPruneFit(file=str(file)), vlm, processor).run()


def test_samples_from_a_file(vlm, processor, tmp_path):
    one = images.scenes(1, 5)[0]
    one.shown()[0].save(tmp_path / "a.png")
    lines = [json.dumps({"image": "a.png", "question": one.question, "answer": one.answers[0]})] * 2
    (tmp_path / "samples.jsonl").write_text("\n".join(lines))
    read = images.from_file(tmp_path / "samples.jsonl")
    assert [x.question for x in read] == [one.question] * 2
    assert list(read[0].shown()[0].getdata()) == list(one.shown()[0].getdata())
    made = Trainer(FitPruneFit(file=str(tmp_path / "samples.jsonl"), reductions=(40,)), vlm, processor).run()
    assert len(made.data["fits"][0]["deleted"]) == 8
