"""KVzap: what a threshold leaves, in one pass, in chunks and token by token; what a budget leaves."""

import math

import pytest
import torch
from helpers.replay_by_hand import Words
from helpers.zap_tools import artifact

import laconic
from laconic import KVzap, KVzipPlus
from laconic.errors import ArtifactError, BudgetError

N = 60
HEADS = [(layer, head) for layer in range(4) for head in range(2)]


def kept(session, row=0):
    return [session.kept(layer, head, row=row).tolist() for layer, head in HEADS]


@torch.no_grad()
def predicted(model, ids, path):
    """log s+ by hand: [layers, Hkv, n]."""
    tensors = laconic.Artifact.load(path).tensors
    states = model(ids, output_hidden_states=True).hidden_states
    out = []
    for i, layer in enumerate(model.model.layers):
        x = layer.input_layernorm(states[i])[0]
        if "enter" in tensors:
            x = torch.nn.functional.gelu(x @ tensors["enter"][i] + tensors["enter_bias"][i])
        out.append((x @ tensors["leave"][i] + tensors["leave_bias"][i]).T)
    return torch.stack(out)


def above(scores, threshold, window):
    """What stays of every head, from scores [layers, Hkv, n]."""
    n = scores.shape[2]
    return [[t for t in range(n) if scores[x, y, t] >= threshold or t >= n - window] for x, y in HEADS]


@pytest.mark.parametrize("width", [0, 5])
@pytest.mark.parametrize("threshold", [-2.0, 0.0, 3.0])
def test_what_lies_below_the_threshold_goes(llama, prompt, tmp_path, width, threshold):
    path, ids = artifact(llama, tmp_path, width), prompt(1, N)
    want = above(predicted(llama, ids, path), threshold, 7)
    with laconic.compress(llama, KVzap(threshold=threshold, window=7, artifact=path)) as session:
        llama(ids)
    assert kept(session) == want and len({len(tokens) for tokens in want}) > 1
    assert session.stats.achieved == pytest.approx(sum(map(len, want)) / 8 / N)


def test_no_threshold_is_the_model_and_an_infinite_one_leaves_the_window(llama, prompt, tmp_path):
    path, ids = artifact(llama, tmp_path), prompt(1, N)
    generate = {"max_new_tokens": 8, "do_sample": False, "pad_token_id": 0}
    want = llama.generate(ids, **generate)
    with laconic.compress(llama, KVzap(threshold=-math.inf, every=1, artifact=path)) as session:
        assert torch.equal(llama.generate(ids, **generate), want)
    assert session.stats.achieved == 1
    with laconic.compress(llama, KVzap(threshold=math.inf, window=16, every=1, artifact=path)) as session:
        llama.generate(ids, **generate)
    assert kept(session) == [list(range(N + 7 - 16, N + 7))] * 8


@pytest.mark.parametrize("every", [1, 8])
def test_chunks_and_single_tokens_keep_the_same(make_llama, prompt, tmp_path, every):
    """In one layer, where what a token is does not depend on what was let go before it; once all have left the window."""
    model, ids = make_llama(layers=1), prompt(1, 64)
    path = artifact(model, tmp_path)
    found = []
    for sizes in ([64], [20, 1, 30, 13], [24, *[1] * 40]):
        with laconic.compress(model, KVzap(threshold=1.0, window=10, every=every, artifact=path)) as session:
            for piece in ids.split(sizes, 1):
                model(piece, past_key_values=session.cache)
        found.append([[t for t in session.kept(0, head).tolist() if t < 64 - 10] for head in range(2)])
    assert found[0] == found[1] == found[2] and 0 < len(found[0][0]) != len(found[0][1]) < 54


def test_while_decoding_entries_go_when_they_leave_the_window(llama, prompt, tmp_path):
    path = artifact(llama, tmp_path)
    with laconic.compress(llama, KVzap(threshold=math.inf, window=10, every=4, artifact=path)) as session:
        llama(prompt(1, 21))
        for number, token in enumerate(prompt(1, 12, seed=1)[0], 22):
            llama(token.view(1, 1), past_key_values=session.cache)
            waits = number % 4 if number >= 24 else number - 21
            assert kept(session) == [list(range(number - 10 - waits, number))] * 8
        freed = sum(part.nbytes for layer in session.cache.compressed() for part in layer.parts)
    assert freed == 8 * 11 * 2 * 8 * 4


def test_drafts_that_stay_are_judged_like_others(llama, prompt, tmp_path):
    path, ids = artifact(llama, tmp_path), prompt(1, 30)
    ids = torch.cat([ids, ids[:, :15]], 1)  # repeats, so that looking up n-grams drafts something
    found = []
    for more in ({}, {"prompt_lookup_num_tokens": 3}):
        with laconic.compress(llama, KVzap(threshold=0.5, window=6, every=1, artifact=path)) as session:
            out = llama.generate(ids, max_new_tokens=20, do_sample=False, pad_token_id=0, **more)
        for layer in session.cache.compressed():  # all that was stored while decoding has a score
            columns = layer.restored()[2]
            assert bool((columns["score"][columns["valid"]] > 0).all())
        found.append((out.tolist(), kept(session)))
    assert found[0][0] == found[1][0]
    few = [[[t for t in head if t < 55] for head in heads] for _, heads in found]
    assert few[0] == few[1]


def test_with_the_true_scores_it_keeps_what_kvzip_plus_would(llama, prompt, tmp_path):
    ids, truth = prompt(1, N), {}

    class Noting(KVzipPlus):
        def _score(self, obs):
            return truth.setdefault(obs.layer, super()._score(obs))

    class Told(KVzap):
        def _predicted(self, layer, x):
            return truth[layer]

    with laconic.compress(llama, Noting(tokens=N, over="head"), tokenizer=Words()):
        llama(ids)
    scores = torch.cat([truth[layer] for layer in range(4)])
    middle = scores.log().flatten().sort().values[scores.numel() // 2 - 1 :][:2]
    threshold = float(middle.mean())  # between two scores, so that rounding decides nothing
    with laconic.compress(llama, Told(threshold=threshold, window=0, artifact=artifact(llama, tmp_path))) as session:
        llama(ids)
    assert kept(session) == above(scores.log(), threshold, 0)
    with laconic.compress(llama, Told(keep=0.4, window=0, artifact=artifact(llama, tmp_path))) as session:
        llama(ids)
    with laconic.compress(llama, KVzipPlus(keep=0.4, sinks=0), tokenizer=Words()) as plus:
        llama(ids)
    assert kept(session) == kept(plus)


def test_rows_of_a_batch_keep_what_each_alone_keeps(llama, prompt, tmp_path):
    ids, mask = prompt(2, N), torch.ones(2, N, dtype=torch.long)
    ids[0, :23], mask[0, :23] = 0, 0
    method = KVzap(threshold=1.0, window=9, every=4, artifact=artifact(llama, tmp_path))
    with laconic.compress(llama, method) as both:
        llama.generate(ids, attention_mask=mask, max_new_tokens=11, do_sample=False, pad_token_id=0)
    with laconic.compress(llama, method) as alone:
        llama.generate(ids[1:], max_new_tokens=11, do_sample=False, pad_token_id=0)
    assert kept(both, 1) == kept(alone)
    with laconic.compress(llama, KVzap(threshold=1.0, window=9, artifact=method.artifact)) as both:
        llama(ids, attention_mask=mask)
    with laconic.compress(llama, KVzap(threshold=1.0, window=9, artifact=method.artifact)) as alone:
        llama(ids[:1, 23:])
    assert kept(both, 0) == [[t + 23 for t in head] for head in kept(alone)]


def test_protection_wins(llama, prompt, tmp_path):
    with laconic.compress(llama, KVzap(threshold=9e9, window=4, protect=(3, 6), artifact=artifact(llama, tmp_path))) as s:
        llama(prompt(1, N))
    assert kept(s) == [[3, 4, 5, *range(N - 4, N)]] * 8


@pytest.mark.parametrize("over", ["model", "layer", "head"])
def test_a_budget_keeps_the_best_and_the_newest(llama, prompt, tmp_path, over):
    path, ids = artifact(llama, tmp_path), prompt(1, N)
    scores = predicted(llama, ids, path)
    scores[..., -6:] = math.inf
    with laconic.compress(llama, KVzap(keep=0.3, window=6, over=over, artifact=path)) as session:
        llama(ids)
    groups = {"model": [HEADS], "layer": [[(x, 0), (x, 1)] for x in range(4)], "head": [[pair] for pair in HEADS]}[over]
    for group in groups:
        ranked = sorted(((-float(scores[x, y, t]), x, y, t) for x, y in group for t in range(N)))[: 18 * len(group)]
        for x, y in group:
            assert session.kept(x, y).tolist() == sorted(t for _, a, b, t in ranked if (a, b) == (x, y))


def test_what_was_decoded_competes_with_a_score_of_its_own(llama, prompt, tmp_path):
    """In a second turn of a budgeted cache."""
    path = artifact(llama, tmp_path)
    with laconic.compress(llama, KVzap(keep=0.5, window=0, over="head", artifact=path)) as session:
        llama(prompt(1, 20))
        for token in prompt(1, 20, seed=1)[0]:
            llama(token.view(1, 1), past_key_values=session.cache)
        llama(prompt(1, 20, seed=2), past_key_values=session.cache)
    assert any(20 <= t < 40 for head in kept(session) for t in head)


def test_the_share_names_the_threshold_that_was_calibrated(llama, prompt, tmp_path):
    """Thresholds for 1, 2, ... 99 %, here 49, 48, ... -49, and between two of them their mean."""
    path = artifact(llama, tmp_path)
    for share, threshold in ((0.01, 49), (0.25, 25), (0.5, 0), (0.505, -0.5), (0.99, -49), (1.0, -49), (0.0, 49)):
        method = KVzap(share=share, artifact=path)
        method.attach(llama)
        assert method._least == pytest.approx(math.exp(threshold), rel=1e-5)


def test_what_it_refuses(llama, make_llama, tmp_path):
    path = artifact(llama, tmp_path)
    with pytest.raises(BudgetError, match=r"threshold=-4.0 decides how much stays; leave out keep=0.5"):
        KVzap(threshold=-4.0, keep=0.5)
    with pytest.raises(ValueError, match="threshold=nan: give a number"):
        KVzap(threshold=math.nan)
    with pytest.raises(ValueError, match=r"share=1\.5 must be between 0 and 1"):
        KVzap(share=1.5)
    with pytest.raises(ValueError, match="every=0 must be a whole number of at least 1"):
        KVzap(every=0)
    with pytest.raises(ValueError, match="choose 'model', 'layer' or 'head'"):
        KVzap(over="rows")
    with (
        pytest.raises(ArtifactError, match="made for other weights"),
        laconic.compress(make_llama(seed=5), KVzap(artifact=path)),
    ):
        pass
    for change, message in (
        ({"leave": torch.zeros(3, 32, 2)}, "do not fit kvzap|is for 3 layers"),
        ({"leave": torch.zeros(4)}, "lacks"),
        ({"leave": torch.zeros(4, 16, 2)}, "of 2 KV heads that read 16 numbers; the model has 4 of 2 that read 32"),
    ):
        bad = artifact(llama, tmp_path, **change)
        with pytest.raises(ArtifactError, match=message), laconic.compress(llama, KVzap(artifact=bad)):
            pass
    bare = artifact(llama, tmp_path, thresholds=())
    with (
        pytest.raises(ArtifactError, match="has no thresholds; give threshold="),
        laconic.compress(llama, KVzap(artifact=bare)),
    ):
        pass
