"""EMS against a slow loop per head, and the properties that its components must have."""

import math

import pytest
import torch
from helpers.reference import left_padding, observe, slow_attend, slow_logits, slow_rotate, slow_top

import laconic
from laconic.errors import BudgetError
from laconic.methods.cache.ems import EMS
from laconic.ops.attend import attention_mass, attention_rows

GREEDY = {"do_sample": False, "return_dict_in_generate": True, "output_logits": True, "pad_token_id": 0}


def shown(**settings):
    """An observation whose latest queries are remembered, as the core does."""
    obs = observe(**settings)
    obs.state["queries"] = obs.queries[:, :, -32:]
    return obs


def compressed(method, obs):
    """The part that a prefill pass leaves."""
    (part,) = method.reduce(None, obs, {"index": obs.index, **method.columns(obs)})
    return part


def entries(part, b, h):
    """Real entries of one head: keys, values, columns."""
    own = part.columns["valid"][b, h] if part.has("valid") else slice(None)
    columns = {name: column[b, h][own] for name, column in part.columns.items()}
    return part.keys[b, h][own], part.values[b, h][own], columns


def slow_score(method, rows, w):
    """S of the entries before the last w, for one KV head: rows [G, n, n] of causal attention."""
    n = rows.shape[1]
    mean = rows.mean(0)
    whole = [sum(float(mean[i, j]) for i in range(j, n)) / (n - j) for j in range(n - w)]
    local = [sum(float(mean[i, j]) for i in range(n - max(1, w), n)) / max(1, w) for j in range(n - w)]
    ratio = sum(local) / sum(whole)
    both = [max(a, g * ratio) if method.combine == "max" else a + g * ratio for a, g in zip(local, whole, strict=True)]
    side = method.kernel // 2
    return [max(both[max(0, j - side) : j + side + 1]) for j in range(len(both))], whole


def slow_ems(method, rows, keys, values, capacity, protected=()):
    """One head, one entry at a time -> [(key, value, token, global mean)] of the centers and the recent entries."""
    n = len(keys)
    w = min(method.window, max(0, capacity - len(protected)) // 2)
    m = capacity - w
    score, whole = slow_score(method, rows, w)
    order = slow_top([math.inf if j in protected else x for j, x in enumerate(score)], m)
    ranked = sorted(range(n - w), key=lambda j: (-(math.inf if j in protected else score[j]), j))
    moving = ranked[m : m + method.pool_factor * m]
    members = {c: [c] for c in order}
    place = {j: slow_rotate(keys[j], -j) if method.merge_space == "pre_rope" else keys[j] for j in range(n)}
    unit = {j: place[j] / place[j].norm() for j in range(n)}
    for j in moving:
        best, where = method.tau, None
        for c in order:
            if c < method.sinks or c in protected:
                continue
            x = float(unit[j] @ unit[c])
            if x > best:
                best, where = x, c
        if where is not None:
            members[where].append(j)
    out = []
    for c in order:
        if len(members[c]) == 1:
            out.append((keys[c], values[c], c, whole[c], 1))
            continue
        total = sum(score[j] for j in members[c])
        direction = sum(score[j] * unit[j] for j in members[c])
        key = direction / direction.norm() * sum(score[j] * float(place[j].norm()) for j in members[c]) / total
        if method.merge_space == "pre_rope":
            key = slow_rotate(key, c)
        value = sum(score[j] * values[j] for j in members[c]) / total
        out.append((key, value, c, sum(whole[j] for j in members[c]), len(members[c])))
    return out + [(keys[j], values[j], j, None, 1) for j in range(n - w, n)]


@pytest.mark.parametrize("pads", [(0, 0), (11, 0)])
@pytest.mark.parametrize("protect", [(), (3, 4, 20)])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"window": 6, "tau": 0.2, "pool_factor": 2},
        {"window": 4, "tau": -2.0, "kernel": 1, "combine": "sum", "sinks": 0},
        {"window": 6, "tau": 0.1, "merge_space": "pre_rope", "multiplicity": True},
    ],
)
def test_a_prompt_is_compressed_as_the_loop_says(pads, protect, settings):
    n, targets = 47, [12, 15]
    valid = left_padding(n, *pads) if any(pads) else None
    protected = torch.zeros(2, 2, n, dtype=torch.bool)
    for b in range(2):
        protected[b, :, [pads[b] + j for j in protect]] = True
    obs = shown(n=n, valid=valid, targets=targets, protected=protected if protect else None)
    method = EMS(**settings)
    part = compressed(method, obs)
    rows = slow_logits(obs.queries, obs.keys, obs.scale, obs.bias, past=0).softmax(-1).float()
    assert part.length == max(targets)
    for b, pad in enumerate(pads):
        for h in range(2):
            own = rows[b, 2 * h : 2 * h + 2, pad:, pad:]
            want = slow_ems(method, own, obs.keys[b, h, pad:], obs.values[b, h, pad:], targets[b], protect)
            keys, values, columns = entries(part, b, h)
            assert (columns["index"] - pad).tolist() == [token for _, _, token, _, _ in want]
            torch.testing.assert_close(keys, torch.stack([k for k, *_ in want]), atol=1e-4, rtol=1e-4)
            torch.testing.assert_close(values, torch.stack([v for _, v, *_ in want]), atol=1e-4, rtol=1e-4)
            mean = (columns["mass"] / columns["count"]).tolist()
            for got, (_, _, _, whole, _) in zip(mean, want, strict=True):
                assert whole is None or got == pytest.approx(whole, rel=1e-3, abs=1e-5)
            assert columns["count"].tolist() == [n - pad - token for _, _, token, _, _ in want]
            if method.multiplicity:
                stands = torch.tensor([float(count) for *_, count in want])
                torch.testing.assert_close(columns["bias"].exp(), stands, atol=1e-4, rtol=1e-4)
            assert set(protect) <= {token for _, _, token, _, _ in want}


def test_above_one_nothing_merges_and_kept_entries_are_bit_identical():
    obs = shown(n=60, targets=[20, 20])
    pure, none = compressed(EMS(window=8, tau=1.1), obs), compressed(EMS(window=8, pool_factor=0), obs)
    for b in range(2):
        for h in range(2):
            keys, values, columns = entries(pure, b, h)
            index = columns["index"].long()
            assert torch.equal(keys, obs.keys[b, h, index]) and torch.equal(values, obs.values[b, h, index])
            assert torch.equal(entries(none, b, h)[0], keys)


def test_below_minus_one_nothing_in_the_pool_is_forgotten():
    seen = shown(n=60, targets=[20, 20])
    part = compressed(EMS(window=8, tau=-1.1, pool_factor=2, multiplicity=True, sinks=0), seen)
    counts = part.columns["bias"].exp()[..., :12]
    torch.testing.assert_close(counts.sum(-1), torch.full((2, 2), 12.0 + 24.0))
    assert not part.columns["bias"][..., 12:].any()  # recent entries stand for themselves


def test_sinks_never_absorb():
    obs = shown(n=60, targets=[40, 40])
    obs.keys[:, :, 40] = obs.keys[:, :, 2] * 2  # as similar to a sink as possible
    part = compressed(EMS(window=8, tau=-1.1, kernel=1, multiplicity=True), obs)
    for b in range(2):
        for h in range(2):
            keys, _, columns = entries(part, b, h)
            sink = columns["index"] < 4
            assert not columns["bias"][sink].any()
            assert torch.equal(keys[sink], obs.keys[b, h, columns["index"][sink].long()])


def test_uniform_attention_has_harmonic_global_scores():
    n = 300
    obs = shown(b=1, h=1, hkv=1, n=n)
    obs.queries.zero_()
    columns = EMS().columns(obs)
    harmonic = torch.cat([torch.zeros(1), (1 / torch.arange(1, n + 1).double()).cumsum(0).float()])
    mass = (harmonic[n] - harmonic[:n]).view(1, 1, n)
    torch.testing.assert_close(columns["mass"], mass, atol=1e-5, rtol=1e-4)
    assert columns["count"][0, 0].tolist() == [n - j for j in range(n)]
    mean = columns["mass"] / columns["count"]
    torch.testing.assert_close(mean, mass / (n - torch.arange(n)), atol=1e-6, rtol=1e-4)
    assert mean.max() / mean.min() < 1.2 * math.log(n) and mass.max() / mass.min() > 0.9 * n * math.log(n)


def test_what_the_window_ignores_keeps_its_global_part():
    local, whole = torch.tensor([[0.0, 0.3, 0.1, 0.0]]), torch.tensor([[0.4, 0.1, 0.1, 0.2]])
    torch.testing.assert_close(EMS(kernel=1).score_old(local, whole), torch.tensor([[0.2, 0.3, 0.1, 0.1]]))
    torch.testing.assert_close(EMS(kernel=1, combine="sum").score_old(local, whole), torch.tensor([[0.2, 0.35, 0.15, 0.1]]))
    assert not EMS(kernel=1).score_old(local, torch.zeros(1, 4)).isnan().any()


def test_column_sums_in_blocks_equal_the_dense_ones():
    obs = observe(n=700, b=1)
    dense = attention_rows(obs.queries, obs.keys, obs.scale).sum(3).mean(2)
    torch.testing.assert_close(attention_mass(obs.queries, obs.keys, obs.scale), dense, atol=1e-5, rtol=1e-5)


def test_chunks_add_up_to_the_whole():
    whole, first = observe(n=40), observe(n=40, t=40)
    first.queries, first.keys, first.index = whole.queries[:, :, :25], whole.keys[:, :, :25], whole.index[..., :25]
    first.step.start, first.step.length = 0, 25
    past = EMS().columns(first)
    second = observe(n=40, t=15)
    second.queries, second.keys, second.columns = whole.queries[:, :, 25:], whole.keys, past
    for name, column in EMS().columns(second).items():
        torch.testing.assert_close(column, EMS().columns(whole)[name], atol=1e-5, rtol=1e-5)


# -- what merging is good for ------------------------------------------------------------------------------------------
def synthetic(clusters, n, noise, seed, d=32, future=64):
    """One head of n keys around `clusters` directions (None: no clusters), with values of the same clusters; queries in the
    prompt and `future` ones look for clusters. -> an observation and the future queries."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator)

    obs = shown(b=1, h=1, hkv=1, n=n, d=d, seed=seed, targets=[n // 12])
    if clusters is None:
        return obs, normal(1, 1, future, d)
    centers, meanings = normal(clusters, d), normal(clusters, d)
    share = torch.arange(1, clusters + 1).float().pow(-0.7)  # some clusters are looked for more often

    def drawn(count):
        return torch.multinomial(share, count, replacement=True, generator=generator)

    own = torch.randint(clusters, (n,), generator=generator)
    obs.keys[0, 0] = centers[own] + noise * normal(n, d)
    obs.values[0, 0] = meanings[own] + normal(n, d)
    obs.queries[0, 0] = 1.5 * centers[drawn(n)] + noise * normal(n, d)
    obs.state["queries"] = obs.queries[:, :, -32:]
    return obs, 1.5 * centers[drawn(future)][None, None] + noise * normal(1, 1, future, d)


def error(method, obs, queries):
    """Relative error of the attention output of true future queries after compression."""
    part = compressed(method, obs)
    want = slow_attend(queries, obs.keys, obs.values, obs.scale)[0]
    got = part.attend(queries, obs.scale, None)[0].double()
    return float((got - want).norm() / want.norm())


@pytest.mark.slow
@pytest.mark.parametrize("share", [10, 20])
@pytest.mark.parametrize("seed", range(3))
def test_merging_beats_forgetting_where_keys_repeat(seed, share):
    obs, queries = synthetic(clusters=10, n=360, noise=0.3, seed=seed)
    obs.targets = [360 // share]
    evict = error(EMS(window=8, tau=1.1), obs, queries)
    assert error(EMS(window=8), obs, queries) < 0.9 * evict
    assert error(EMS(window=8, multiplicity=True), obs, queries) < 0.9 * evict


@pytest.mark.parametrize("seed", range(3))
def test_on_isotropic_keys_the_zero_class_takes_over(seed):
    seen, queries = synthetic(clusters=None, n=360, noise=0, seed=seed)
    evict = error(EMS(window=8, tau=1.1), seen, queries)
    assert error(EMS(window=8), seen, queries) == pytest.approx(evict, rel=0.05)


# -- in a model --------------------------------------------------------------------------------------------------------
def test_every_head_holds_exactly_the_budget_after_each_compression(llama, prompt):
    c, w = 24, 6
    lengths = []
    with laconic.compress(llama, EMS(tokens=c, window=w, tau=0.2)) as session:
        llama(prompt(2, 60))
        for i in range(3 * w + 2):
            counts = torch.stack([layer.lengths for layer in session.cache.compressed()])
            assert (counts == counts[0, 0, 0]).all()
            lengths.append(int(counts[0, 0, 0]))
            assert session.kept(0)[-6:].tolist() == list(range(54 + i, 60 + i))
            llama(prompt(2, 1, seed=i), past_key_values=session.cache)
    assert lengths == ([c + i for i in range(w)] * 4)[: 3 * w + 2]


@pytest.mark.parametrize("space", ["post_rope", "pre_rope"])
def test_decoding_compresses_with_the_means_of_all_rows(make_llama, prompt, passes, space):
    """A prompt below the budget, then single tokens: the first compression is that of a prompt of all these tokens."""
    model = make_llama(layers=1)
    method = EMS(tokens=20, window=6, tau=0.2, merge_space=space)
    with laconic.compress(model, method) as session:
        model(prompt(1, 10))
        for i in range(16):
            model(prompt(1, 1, seed=i), past_key_values=session.cache)
    part = session.cache.layers[0].parts[0]
    assert part.length == 20
    queries = torch.cat([q for q, _ in passes[0]], 2)
    keys = torch.cat([k for _, k in passes[0]], 2)
    rows = slow_logits(queries, keys, 8**-0.5, past=0).softmax(-1).float()
    for h in range(2):
        want = slow_ems(method, rows[0, 2 * h : 2 * h + 2], keys[0, h], torch.zeros(26, 8), 20)
        got, _, columns = entries(part, 0, h)
        assert columns["index"].tolist() == [token for _, _, token, _, _ in want]
        torch.testing.assert_close(got, torch.stack([k for k, *_ in want]), atol=1e-4, rtol=1e-4)
        assert columns["count"].tolist() == [26 - token for _, _, token, _, _ in want]


@pytest.mark.slow
@pytest.mark.parametrize("budget", [{"keep": 0.3}, {"tokens": 12}, {"tokens": 70}])
@pytest.mark.parametrize("settings", [{}, {"merge_space": "pre_rope"}, {"multiplicity": True}], ids=str)
def test_a_padded_batch_equals_single_runs_for_many_steps(llama, prompt, budget, settings):
    ids, mask = prompt(2, 80), torch.ones(2, 80, dtype=torch.long)
    ids[0, :23], mask[0, :23] = 0, 0
    method = EMS(window=7, tau=0.2, **settings, **budget)
    with laconic.compress(llama, method) as session:
        both = llama.generate(ids, attention_mask=mask, max_new_tokens=25, **GREEDY)
    together = [[session.kept(2, h, b) - (23, 0)[b] for h in range(2)] for b in range(2)]
    for b, pad in enumerate((23, 0)):
        with laconic.compress(llama, method) as session:
            single = llama.generate(ids[b : b + 1, pad:], max_new_tokens=25, **GREEDY)
        torch.testing.assert_close(torch.stack(both.logits)[:, b], torch.stack(single.logits)[:, 0], atol=2e-4, rtol=2e-4)
        assert all(torch.equal(together[b][h], session.kept(2, h)) for h in range(2))


def test_held_tokens_are_judged_by_the_queries_that_came_after_them(llama, prompt):
    """A gap in the remembered queries: those from before the hold do not belong to the newest entries."""
    method = EMS(tokens=20, window=6)
    with laconic.compress(llama, method) as session:
        llama(prompt(1, 40))
        with session.hold():
            llama(prompt(1, 4, seed=1), past_key_values=session.cache)
        assert len(session.kept(0)) == 24
        for i in range(2):
            llama(prompt(1, 1, seed=i), past_key_values=session.cache)
    assert len(session.kept(0)) == 20 and session.kept(0)[-6:].tolist() == list(range(40, 46))
    count = session.cache.layers[0].parts[0].columns["count"][0, 0, -6:].tolist()
    assert count == [2, 2, 2, 2, 2, 1]  # held tokens were counted by the two queries since


def test_protected_tokens_are_neither_merged_nor_forgotten(llama, prompt):
    ids = prompt(1, 50)
    with laconic.compress(llama, EMS(tokens=14, window=6, tau=-2.0), protect=(10, 15)) as session:
        with session.hold():
            llama(ids)
        before = session.cache.layers[0].parts[0].keys[:, :, 10:15].clone()
        for i in range(20):
            llama(prompt(1, 1, seed=i), past_key_values=session.cache)
    part = session.cache.layers[0].parts[0]
    for h in range(2):
        keys, _, columns = entries(part, 0, h)
        own = (columns["index"] >= 10) & (columns["index"] < 15)
        assert int(own.sum()) == 5 and torch.equal(keys[own], before[0, h])
    with pytest.raises(BudgetError, match="9 tokens are protected"):  # noqa: SIM117
        with laconic.compress(llama, EMS(tokens=8), protect=(10, 19)):
            llama(ids)


def test_below_the_budget_nothing_changes(llama, prompt):
    ids = prompt(2, 50)
    want = llama.generate(ids, max_new_tokens=30, **GREEDY)
    with laconic.compress(llama, EMS(tokens=80)):
        got = llama.generate(ids, max_new_tokens=30, **GREEDY)
    torch.testing.assert_close(torch.stack(got.logits), torch.stack(want.logits), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    "wrong", [{"window": 0}, {"kernel": 4}, {"pool_factor": -1}, {"sinks": -1}, {"combine": "mean"}, {"merge_space": "x"}]
)
def test_impossible_parameters_are_refused(wrong):
    with pytest.raises(ValueError, match=f"ems: {next(iter(wrong))}="):
        EMS(**wrong)


def test_the_catalogue_calls_it_a_reconstruction():
    assert "reconstruction" in laconic.list_methods("ems")[0].inferred
