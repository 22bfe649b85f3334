"""Attention Matching: the fits of one head against equations and dense solvers, and whole sessions."""

import math

import pytest
import torch
from helpers.replay_by_hand import Words

import laconic
from laconic import AttentionMatching, KVzip
from laconic.cache.parts.base import DensePart
from laconic.cache.parts.ragged import RaggedPart
from laconic.methods.cache.attention_matching import HIGH, LOW, Head
from laconic.ops.attend import attend, merge

N, D = 41, 8
SCALE = D**-0.5


def drawn(n, seed=0, d=D):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def head(queries=300, keys=24, softcap=None):
    return Head(drawn(queries), drawn(keys, 1), drawn(keys, 2), SCALE, softcap)


def full(queries, keys, values, bias=0.0):
    """Log mass and output of one head, in fp64."""
    s = queries.double() @ keys.double().T * SCALE + bias
    return s.logsumexp(1), s.softmax(1) @ values.double()


def slow(q, k, v, picks, steps=2):
    """Bias and values of the picked keys straight from the equations: dense matrices, fp64."""
    s = q.double() @ k.double().T * SCALE
    e = (s - s.amax(1, keepdim=True)).exp()
    y, few = e.sum(1), e[:, picks]
    w = torch.linalg.lstsq(few, y[:, None]).solution[:, 0].clamp(LOW, HIGH)
    for _ in range(steps):
        w = (w - few.T @ (few @ w - y) / torch.linalg.matrix_norm(few, 2) ** 2).clamp(LOW, HIGH)
    x = (s[:, picks] + w.log()).softmax(1)
    return w.log(), torch.linalg.lstsq(x, s.softmax(1) @ v.double()).solution


def test_the_fits_are_those_of_the_equations():
    one = head()
    picks = one.strongest(10)
    bias = one.bias(picks, 2)
    want_bias, want_values = slow(drawn(300), drawn(24, 1), drawn(24, 2), picks)
    torch.testing.assert_close(bias, want_bias.float(), atol=2e-3, rtol=1e-3)
    torch.testing.assert_close(one.mixtures(picks, want_bias.float()), want_values.float(), atol=2e-3, rtol=2e-3)


def test_keys_have_the_highest_root_mean_square():
    one = head()
    weights = (drawn(300) @ drawn(24, 1).T * SCALE).softmax(1)
    want = weights.square().mean(0).sqrt()
    torch.testing.assert_close(one.rms, want)
    assert one.strongest(5).tolist() == want.argsort(descending=True)[:5].tolist()


def test_blocks_of_queries_change_nothing(monkeypatch):
    whole = head()
    monkeypatch.setattr("laconic.methods.cache.attention_matching._CELLS", 24 * 37)
    blocked = head()
    picks = whole.strongest(9)
    assert len(blocked.blocks) > 5 and blocked.strongest(9).tolist() == picks.tolist()
    torch.testing.assert_close(blocked.bias(picks, 2), whole.bias(picks, 2), atol=1e-4, rtol=1e-4)
    bias = torch.zeros(9)
    torch.testing.assert_close(blocked.mixtures(picks, bias), whole.mixtures(picks, bias), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("softcap", [None, 5.0])
def test_all_keys_need_no_bias_and_no_other_values(softcap):
    one = head(softcap=softcap)
    everything = torch.arange(24)
    bias = one.bias(everything, 2)
    assert bias.abs().max() < 1e-4
    torch.testing.assert_close(one.mixtures(everything, torch.zeros(24)), drawn(24, 2), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("t", [3, 10, 20])
def test_fitted_residuals_never_exceed_those_of_what_was_kept(t):
    one = head()
    picks = one.strongest(t)
    s = drawn(300) @ drawn(24, 1).T * SCALE
    e = (s - s.amax(1, keepdim=True)).exp()
    kept, fitted = (((e[:, picks] * w).sum(1) - e.sum(1)).norm() for w in (1.0, one.bias(picks, 200).exp()))
    assert fitted <= kept
    bias = one.bias(picks, 2)
    x, want = (s[:, picks] + bias).softmax(1), s.softmax(1) @ drawn(24, 2)
    kept, fitted = ((x @ values - want).norm() for values in (drawn(24, 2)[picks], one.mixtures(picks, bias)))
    assert fitted <= kept


def test_few_queries_leave_the_rest_of_the_values_alone():
    """Two queries for ten values: only what those two see changes."""
    one = head(queries=2)
    picks = one.strongest(10)
    change = one.mixtures(picks, torch.zeros(10)) - drawn(24, 2)[picks]
    assert int(torch.linalg.matrix_rank(change, atol=1e-3)) == 2


def twins():
    """Every key and value twice, the queries, and one of each pair."""
    keys, values = drawn(12, 1).repeat(2, 1), drawn(12, 2).repeat(2, 1)
    return Head(drawn(300), keys, values, SCALE, None), keys, values, torch.arange(12)


def test_one_of_each_pair_has_twice_the_mass_and_answers_any_query():
    one, keys, values, picks = twins()
    bias = one.bias(picks, 2)
    torch.testing.assert_close(bias, torch.full((12,), math.log(2)), atol=2e-4, rtol=0)
    mixtures = one.mixtures(picks, bias)
    torch.testing.assert_close(mixtures, values[:12], atol=1e-3, rtol=1e-3)
    other = 3 * drawn(50, 9)
    for got, want in zip(full(other, keys[:12], mixtures, bias), full(other, keys, values), strict=True):
        torch.testing.assert_close(got, want, atol=2e-3, rtol=2e-3)


@pytest.mark.parametrize("kind", [DensePart, RaggedPart])
def test_what_is_kept_merges_with_later_tokens_as_all_would(kind):
    one, keys, values, picks = twins()
    bias, later = one.bias(picks, 2), (drawn(7, 5)[None, None], drawn(7, 6)[None, None])
    extra = (torch.tensor([[12]]),) if kind is RaggedPart else ()
    part = kind(keys[None, None, :12], one.mixtures(picks, bias)[None, None], {"bias": bias[None, None]}, *extra)
    query = drawn(20, 9)[None, None]
    got = merge([part.attend(query, SCALE, None), attend(query, *later, SCALE)])[0]
    both = torch.cat([keys[None, None], later[0]], 2), torch.cat([values[None, None], later[1]], 2)
    torch.testing.assert_close(got, attend(query, *both, SCALE)[0], atol=1e-3, rtol=1e-3)


def test_on_queries_that_nothing_was_fitted_on():
    """Bias mends the mass, values mend the output, and neither mends the other."""
    one, other = head(queries=600, keys=48), drawn(400, 77)
    keys, values, picks = drawn(48, 1), drawn(48, 2), one.strongest(16)
    bias = one.bias(picks, 2)
    mass, output = full(other, keys, values)

    def errors(b, v):
        got = full(other, keys[picks], v, b)
        return float((got[0] - mass).abs().mean()), float((got[1] - output).norm() / output.norm())

    plain, biased = errors(0.0, values[picks]), errors(bias, values[picks])
    refitted, both = errors(0.0, one.mixtures(picks, torch.zeros(16))), errors(bias, one.mixtures(picks, bias))
    assert biased[0] < 0.5 * plain[0] and both[0] == biased[0] and refitted[0] == plain[0]
    assert refitted[1] < 0.7 * plain[1] and both[1] < 0.7 * biased[1]


# -- sessions ----------------------------------------------------------------------------------------------------------


class Recording(AttentionMatching):
    """Remembers what each layer's refit was given and made."""

    def attach(self, model):
        super().attach(model)
        self.made = []

    def refit(self, entries, rank, kept, reference):
        before = (entries[0].clone(), entries[1].clone(), kept.clone())
        made = super().refit(entries, rank, kept, reference)
        self.made.append((before, reference, made))
        return made


def run(llama, method, ids, mask=None):
    with laconic.compress(llama, method, tokenizer=Words()) as session:
        llama(ids, attention_mask=mask)
    return session


@pytest.mark.parametrize("over", ["model", "layer", "head"])
def test_a_session_stores_what_the_equations_say(llama, prompt, over):
    method = Recording(keep=0.4, over=over, sinks=2)
    session = run(llama, method, prompt(1, N))
    counts = {(x, y): len(session.kept(x, y)) for x in range(4) for y in range(2)}
    plain = run(llama, KVzip(keep=0.4, over=over, sinks=2), prompt(1, N))
    assert counts == {(x, y): len(plain.kept(x, y)) for x in range(4) for y in range(2)}
    fitted = 0
    for layer, ((keys, values, _), reference, _) in zip(session.cache.compressed(), method.made, strict=True):
        part_keys, part_values, columns = layer.parts[0].padded()
        for h in range(2):
            kept = session.kept(layer.number, h).tolist()
            order = columns["index"][0, h].tolist()
            assert {0, 1} <= set(kept)
            picks = [order.index(t) for t in kept if t >= 2]
            torch.testing.assert_close(part_keys[0, h, picks], keys[0, h, [t for t in kept if t >= 2]])
            for sink in (0, 1):  # they stay out of the block and as they are
                assert columns["bias"][0, h, order.index(sink)] == 0
                torch.testing.assert_close(part_values[0, h, order.index(sink)], values[0, h, sink])
            if not picks or len(picks) == N - 2:
                continue
            one = Head(reference.queries[0, h].flatten(0, 1), keys[0, h, 2:], values[0, h, 2:], SCALE, None)
            assert sorted(one.strongest(len(picks)).tolist()) == [t - 2 for t in kept if t >= 2]
            at = torch.tensor([t - 2 for t in kept if t >= 2])
            torch.testing.assert_close(columns["bias"][0, h, picks], one.bias(at, 2), atol=1e-3, rtol=1e-3)
            want = one.mixtures(at, columns["bias"][0, h, picks])
            torch.testing.assert_close(part_values[0, h, picks], want, atol=1e-3, rtol=1e-3)
            fitted += 1
    assert fitted > 3


def test_the_reference_queries_are_those_of_the_repetition(llama, prompt):
    method, ids = Recording(keep=0.4), prompt(1, N)
    run(llama, method, ids)
    seen = {}
    handle = llama.model.layers[0].self_attn.q_proj.register_forward_hook(lambda m, a, out: seen.update(q=out))
    llama(torch.cat([ids, torch.tensor([[5, 6, 7]]), ids], 1))
    handle.remove()
    _, reference, _ = method.made[0]
    assert reference.queries.shape == (1, 2, 2, N + 3, D) and reference.count == [N + 3] and reference.new == N
    # RoPE turns channels, so lengths of the projected queries are those of the rotated ones
    want = seen["q"][0, N:].view(N + 3, 2, 2, D).permute(1, 2, 0, 3).norm(dim=-1)
    torch.testing.assert_close(reference.queries[0].norm(dim=-1), want, rtol=1e-4, atol=1e-5)


def test_fewer_reference_queries_are_evenly_spaced(llama, prompt):
    every, few = Recording(keep=0.4), Recording(keep=0.4, queries=2 * 15)
    for method in (every, few):
        run(llama, method, prompt(1, N))
    all_queries, some = every.made[1][1].queries, few.made[1][1].queries
    torch.testing.assert_close(some, all_queries[:, :, :, ::3])
    assert few.made[1][1].count == [15]


def test_later_cuts_go_by_the_scores_that_won(llama, prompt):
    """A head's entries carry the scores of those that it would have kept, the strongest the highest."""
    matched, plain = (run(llama, cls(keep=0.4, sinks=0), prompt(1, N)) for cls in (AttentionMatching, KVzip))
    for ours, theirs in zip(matched.cache.compressed(), plain.cache.compressed(), strict=True):
        for h in range(2):
            n = int(ours.lengths[0, h])
            scores = [layer.parts[0].padded()[2]["score"][0, h, :n].sort().values for layer in (ours, theirs)]
            torch.testing.assert_close(*scores, rtol=0, atol=0)


def test_without_fits_and_with_its_entries_it_is_kvzip(llama, prompt):
    ids, question, found = prompt(1, N), prompt(1, 5, seed=3), []
    for method in (KVzip(keep=0.3), AttentionMatching(keep=0.3, keys="score", fit_bias=False, fit_values=False)):
        session = run(llama, method, ids)
        kept = [session.kept(x, y).tolist() for x in range(4) for y in range(2)]
        with laconic.compress(llama, method) as again, again.hold():
            found.append((kept, llama(question, past_key_values=session.cache).logits))
    assert found[0][0] == found[1][0]
    torch.testing.assert_close(found[0][1], found[1][1])


def test_a_short_row_is_fitted_as_alone(llama, prompt):
    ids, mask = prompt(2, N), torch.ones(2, N, dtype=torch.long)
    ids[0, :13], mask[0, :13] = 0, 0
    both, alone = run(llama, AttentionMatching(keep=0.4), ids, mask), run(llama, AttentionMatching(keep=0.4), ids[:1, 13:])
    for ours, theirs in zip(both.cache.compressed(), alone.cache.compressed(), strict=True):
        for h in range(2):
            assert ours.kept(0, h).tolist() == [t + 13 for t in theirs.kept(0, h).tolist()]
            (_, v, c), (_, w, e) = ours.parts[0].padded(), theirs.parts[0].padded()
            m = len(theirs.kept(0, h))
            torch.testing.assert_close(v[0, h, :m], w[0, h, :m], atol=1e-3, rtol=1e-3)
            torch.testing.assert_close(c["bias"][0, h, :m], e["bias"][0, h, :m], atol=1e-3, rtol=1e-3)


def test_a_later_chunk_leaves_what_an_earlier_one_stored(llama, prompt):
    """The second chunk's repetition looks at the second chunk: entries of the first keep values and bias."""
    ids = prompt(1, N)
    with laconic.compress(llama, AttentionMatching(keep=0.5)) as session:
        llama(ids[:, :25])
        first = [layer.parts[0].padded() for layer in session.cache.compressed()]
        llama(ids[:, 25:], past_key_values=session.cache)
        stayed = 0
        for (_, values, columns), layer in zip(first, session.cache.compressed(), strict=True):
            _, later, now = layer.parts[0].padded()
            for h in range(2):
                own = {int(t): i for i, t in enumerate(columns["index"][0, h]) if columns.get("valid") is None or
                       columns["valid"][0, h, i]}  # fmt: skip
                for i, t in enumerate(now["index"][0, h].tolist()):
                    if t < 25 and ("valid" not in now or now["valid"][0, h, i]):
                        torch.testing.assert_close(later[0, h, i], values[0, h, own[t]], rtol=0, atol=0)
                        assert now["bias"][0, h, i] == columns["bias"][0, h, own[t]]
                        stayed += 1
    assert stayed > 60


def test_a_saved_context_has_its_bias(llama, prompt, tmp_path):
    ids, question = prompt(1, N), prompt(1, 4, seed=5)
    with laconic.compress(llama, AttentionMatching(keep=0.3)) as session:
        llama(ids)
        session.save_cache(tmp_path / "context.safetensors", input_ids=ids)
        with session.hold():
            want = llama(question, past_key_values=session.cache).logits
    saved = laconic.load_cache(tmp_path / "context.safetensors", llama)
    with laconic.compress(llama) as session, session.hold():
        got = llama(question, past_key_values=saved.cache()).logits
    torch.testing.assert_close(got, want)


def test_what_it_refuses():
    for wrong in ({"keys": "omp"}, {"steps": -1}, {"queries": 0}):
        with pytest.raises(ValueError, match="attention_matching: "):
            AttentionMatching(**wrong)
