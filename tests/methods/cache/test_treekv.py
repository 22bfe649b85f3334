"""TreeKV against slow loops: the cyclic rule, the shape of the tree, prompts by blocks, and positions by rank."""

import statistics
from itertools import pairwise

import pytest
import torch
from helpers.reference import left_padding, observe, slow_logits, slow_rotate
from torch.utils._python_dispatch import TorchDispatchMode

import laconic
from laconic.cache.parts.base import KINDS
from laconic.errors import BudgetError
from laconic.methods.cache.treekv import TreeKV, sweep

GREEDY = {"do_sample": False, "return_dict_in_generate": True, "output_logits": True, "pad_token_id": 0}


def slow_sweep(stream, capacity, score, idx=1, older=False, watch=None):
    """The rule of algorithm 1 on a list, idx from 1: what stays of `stream`, and idx."""
    kept = []
    for item in stream:
        kept.append(item)
        if len(kept) > capacity:
            i = idx - 1
            del kept[i + 1 if not older and score(kept[i]) > score(kept[i + 1]) else i]
            idx = idx % capacity + 1
        if watch is not None:
            watch(kept)
    return kept, idx


def gaps(kept):
    """Distances between neighbours, newest pair first."""
    return [b - a for a, b in pairwise(kept)][::-1]


def in_model(llama, method, ids, steps):
    """Tokens kept by [layer][row][head] after a prompt and single tokens `steps` [B, n]; the session."""
    with laconic.compress(llama, method) as session:
        llama(ids)
        for i in range(steps.shape[1]):
            llama(steps[:, i : i + 1], past_key_values=session.cache)
    layers = range(llama.config.num_hidden_layers)
    return [[[session.kept(i, h, b).tolist() for h in range(2)] for b in range(ids.shape[0])] for i in layers], session


# -- the rule ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("capacity", [1, 2, 5, 8])
@pytest.mark.parametrize("older", [False, True])
def test_the_sweep_equals_the_list(capacity, older):
    scores = torch.rand(3, 41, generator=torch.Generator().manual_seed(capacity)).round(decimals=1)  # with ties
    kept, pointer = sweep(scores, capacity, 3 % capacity, older)
    for h in range(3):
        want, idx = slow_sweep(range(41), capacity, lambda j, h=h: float(scores[h, j]), 3 % capacity + 1, older)
        assert kept[h].tolist() == want and pointer == idx - 1
    assert sweep(scores, 50, 0)[0].shape == (3, 41) and sweep(scores, 0, 0)[0].shape == (3, 0)


def test_the_score_free_tree_is_dyadic():
    """The known example: c' = 64 after 2000 tokens."""
    kept, _ = sweep(torch.zeros(1, 2000), 64, 0, tree_only=True)
    assert gaps(kept[0].tolist()) == [1] * 16 + [2] * 32 + [8] * 8 + [16] * 4 + [32] * 2 + [64]


@pytest.mark.parametrize("capacity", [4, 16, 23])
def test_gaps_never_shrink_towards_the_past(capacity):
    def watch(kept):
        distances = gaps(kept)
        assert distances == sorted(distances)
        assert capacity == 23 or all(x & (x - 1) == 0 for x in distances)

    slow_sweep(range(30 * capacity), capacity, None, older=True, watch=watch)
    kept, _ = sweep(torch.zeros(1, 30 * capacity), capacity, 0, tree_only=True)
    watch(kept[0].tolist())


def test_random_scores_thin_out_with_distance_and_a_global_choice_does_not():
    scores = torch.rand(20, 3000, generator=torch.Generator().manual_seed(0))
    kept, _ = sweep(scores, 96, 0)
    tree = [gaps(row) for row in kept.tolist()]
    best = [gaps(row.topk(96).indices.sort().values.tolist()) for row in scores]

    def median(rows, third):
        return statistics.median(x for row in rows for x in row[third * 31 : (third + 1) * 31])

    assert median(tree, 0) < median(tree, 1) < median(tree, 2) and median(tree, 2) > 3 * median(tree, 0)
    assert 0.7 < median(best, 0) / median(best, 2) < 1.4


def test_a_token_that_always_wins_is_never_evicted():
    capacity = 12
    scores = torch.rand(2, 50 * capacity, generator=torch.Generator().manual_seed(1))
    scores[:, 7] = 2.0
    kept, _ = sweep(scores, capacity, 0)
    assert (kept == 7).any(-1).all() and not (sweep(scores, capacity, 0, tree_only=True)[0] == 7).any()


# -- prompts -----------------------------------------------------------------------------------------------------------
def slow_prompt(method, scores, capacity, protected):
    """What stays of entries with the given scores (oldest first), straight from the rule."""
    entries = [j for j in range(len(scores)) if j not in protected]
    capacity -= len(protected)
    if len(entries) <= capacity:
        return list(range(len(scores)))
    if capacity == 0:
        return sorted(protected)
    sinks, size = min(method.sinks, capacity // 4), max(1, min(method.block, capacity // 8))
    recent = size  # the window, and what does not yet fill a block
    while (len(entries) - sinks - recent) % size:
        recent += 1
    middle = entries[sinks : len(entries) - recent]
    blocks = [middle[i : i + size] for i in range(0, len(middle), size)]
    room = (capacity - sinks - recent) // size
    kept = entries[:sinks] + entries[len(entries) - recent :]
    if room:
        for stays in slow_sweep(blocks, room, lambda block: sum(scores[j] for j in block), older=method.tree_only)[0]:
            kept += stays
    while len(kept) < capacity:
        kept.append(max(j for j in middle if j not in kept))
    return sorted(kept + list(protected))


@pytest.mark.parametrize("pads", [(0, 0), (9, 0)])
@pytest.mark.parametrize("targets", [[22, 30], [8, 41], [5, 2], [17, 1]])
@pytest.mark.parametrize("protect", [(), (2, 3, 11, 30)])
def test_prompts_go_through_the_rule_by_blocks(pads, targets, protect):
    n = 61
    if protect and min(targets) < len(protect):
        targets = [max(t, len(protect)) for t in targets]
    valid = left_padding(n, *pads) if any(pads) else None
    protected = torch.zeros(2, 2, n, dtype=torch.bool)
    for b in range(2):
        protected[b, :, [pads[b] + j for j in protect]] = True
    obs = observe(n=n, valid=valid, targets=targets, protected=protected if protect else None)
    method = TreeKV(block=4, sinks=2)
    (part,) = method.reduce(None, obs, {"index": obs.index, **method.columns(obs)})
    rows = slow_logits(obs.queries, obs.keys, obs.scale, obs.bias, past=0).softmax(-1)
    for b in range(2):
        window = max(1, min(4, (targets[b] - len(protect)) // 8))
        for h in range(2):
            mass = rows[b, 2 * h : 2 * h + 2, n - window :, pads[b] :].mean(0).sum(0)
            want = [pads[b] + j for j in slow_prompt(method, mass.tolist(), targets[b], protect)]
            own = torch.ones(part.length, dtype=torch.bool) if not part.has("valid") else part.columns["valid"][b, h]
            columns = {name: column[b, h][own] for name, column in part.columns.items()}
            assert columns["index"].tolist() == want and columns["rank"].tolist() == list(range(targets[b]))
            torch.testing.assert_close(columns["mass"].double(), mass[[j - pads[b] for j in want]], atol=1e-5, rtol=1e-4)
            assert columns["count"].tolist() == [min(window, n - j) for j in want]


def test_chunks_continue_where_the_pointer_is(llama, prompt):
    ids = prompt(1, 240)
    with laconic.compress(llama, TreeKV(tokens=40, block=4, tree_only=True, sinks=0)) as session:
        cache = None
        for chunk in ids.split(12, 1):
            llama(chunk, past_key_values=cache)
            cache = session.cache
    distances = gaps(session.kept(2, 1).tolist())
    assert len(distances) == 39 and distances[:3] == [1, 1, 1] and max(distances[:20]) < max(distances[20:])
    assert session.kept(2, 1)[0] < 150  # a pointer that restarted in every chunk would only ever drop the oldest


# -- decoding ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("positions", ["original", "rank"])
def test_below_the_budget_nothing_changes(llama, prompt, positions):
    ids = prompt(2, 50)
    want = llama.generate(ids, max_new_tokens=30, **GREEDY)
    with laconic.compress(llama, TreeKV(tokens=80, positions=positions)):
        got = llama.generate(ids, max_new_tokens=30, **GREEDY)
    torch.testing.assert_close(torch.stack(got.logits), torch.stack(want.logits), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("positions", ["original", "rank"])
@pytest.mark.parametrize("settings", [{}, {"recent": 0, "sinks": 0}, {"recent": 3, "sinks": 1}, {"tree_only": True}])
def test_decoding_equals_the_slow_loop(make_llama, prompt, passes, positions, settings):
    """Every eviction of 5 c steps, per head, and S / T as the plain average of all attention rows."""
    model, n, c, steps, d = make_llama(layers=2), 5, 12, 60, 8
    method = TreeKV(tokens=c, positions=positions, **settings)
    held, session = in_model(model, method, prompt(2, n), prompt(2, steps, seed=1))
    sinks, candidates, recent = method.split(c)
    assert sinks + candidates + recent == c
    for layer in range(2):
        columns = list(session.cache.compressed())[layer].parts[0].columns
        queries = torch.cat([q for q, _ in passes[layer]], 2)
        keys = torch.cat([k for _, k in passes[layer]], 2)
        for b, h in ((0, 0), (1, 1)):
            alive: list[int] = []
            rows: dict[int, list[float]] = {}
            idx = 1
            for now in range(n + steps):
                alive.append(now)
                rows[now] = []
                if now < n - max(1, n // 8):  # only the last block of the prompt counts
                    continue
                place = {token: r if positions == "rank" else token for r, token in enumerate(alive)}
                turned = torch.stack([slow_rotate(keys[b, h, t], place[t] - t) for t in alive])
                attention = torch.zeros(len(alive))
                for g in (2 * h, 2 * h + 1):
                    q = slow_rotate(queries[b, g, now], place[now] - now)
                    attention += (turned @ q * d**-0.5).softmax(-1) / 2
                for token, a in zip(alive, attention.tolist(), strict=True):
                    rows[token].append(a)
                if len(alive) > c:
                    region = alive[sinks : sinks + candidates + 1]
                    left, right = region[idx - 1], region[idx]
                    mean = {t: sum(rows[t]) / len(rows[t]) for t in (left, right)}
                    alive.remove(right if mean[left] > mean[right] and not method.tree_only else left)
                    idx = idx % candidates + 1
                    assert len(alive) == c and set(range(sinks)) <= set(alive)
                    assert set(range(now + 1 - recent, now + 1)) <= set(alive)
            assert held[layer][b][h] == alive
            at = columns["index"][b, h].tolist()
            average = (columns["mass"] / columns["count"])[b, h].tolist()
            assert dict(zip(at, average, strict=True)) == pytest.approx(
                {t: sum(rows[t]) / len(rows[t]) for t in alive}, rel=1e-3, abs=1e-4
            )
            ranks = columns["rank"][b, h].tolist()
            assert [t for _, t in sorted(zip(ranks, at, strict=True))] == alive and sorted(ranks) == list(range(c))


def test_the_model_keeps_the_tree(llama, prompt):
    method = TreeKV(tokens=16, sinks=0, recent=0, tree_only=True)
    held, _ = in_model(llama, method, prompt(1, 3), prompt(1, 150, seed=1))
    want = sweep(torch.zeros(1, 153), 16, 0, tree_only=True)[0][0].tolist()
    assert all(kept == want for layer in held for row in layer for kept in row)


@pytest.mark.parametrize("positions", ["original", "rank"])
def test_saved_and_loaded_in_the_middle_it_continues(llama, prompt, positions):
    ids, steps = prompt(2, 30), prompt(2, 12, seed=1)

    def run(saved):
        out = []
        with laconic.compress(llama, TreeKV(tokens=14, positions=positions)) as session:
            llama(ids)
            for i in range(12):
                for layer in session.cache.compressed():
                    if saved and i in (0, 5):
                        kind = KINDS[layer.parts[0].kind]
                        layer.parts = [kind.from_tensors(layer.parts[0].tensors())]
                        layer.parts[0].link(layer)
                out.append(llama(steps[:, i : i + 1], past_key_values=session.cache).logits)
        return torch.cat(out, 1)

    torch.testing.assert_close(run(True), run(False), atol=1e-6, rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("positions", ["original", "rank"])
@pytest.mark.parametrize("budget", [{"keep": 0.3}, {"tokens": 12}, {"tokens": 70}])
def test_a_padded_batch_equals_single_runs_for_many_steps(llama, prompt, positions, budget):
    ids, mask = prompt(2, 80), torch.ones(2, 80, dtype=torch.long)
    ids[0, :23], mask[0, :23] = 0, 0
    with laconic.compress(llama, TreeKV(positions=positions, **budget)) as session:
        both = llama.generate(ids, attention_mask=mask, max_new_tokens=40, **GREEDY)
    together = [[session.kept(2, h, b) - (23, 0)[b] for h in range(2)] for b in range(2)]
    for b, pad in enumerate((23, 0)):
        with laconic.compress(llama, TreeKV(positions=positions, **budget)) as session:
            single = llama.generate(ids[b : b + 1, pad:], max_new_tokens=40, **GREEDY)
        torch.testing.assert_close(torch.stack(both.logits)[:, b], torch.stack(single.logits)[:, 0], atol=2e-4, rtol=2e-4)
        assert all(torch.equal(together[b][h], session.kept(2, h)) for h in range(2))


@pytest.mark.parametrize("positions", ["original", "rank"])
def test_protected_tokens_outlive_every_sweep(llama, prompt, positions):
    method = TreeKV(tokens=12, positions=positions)
    ids, mask = prompt(2, 40), torch.ones(2, 40, dtype=torch.long)
    mask[1, :7] = 0
    with laconic.compress(llama, method, protect=(6, 11)) as session:
        llama.generate(ids, attention_mask=mask, max_new_tokens=60, pad_token_id=0, do_sample=False)
    for b, pad in enumerate((0, 7)):
        for h in range(2):
            kept = session.kept(1, h, b).tolist()
            assert len(kept) == 12 and set(range(pad + 6, pad + 11)) < set(kept) and kept[-1] == 98
    with pytest.raises(BudgetError, match="13 tokens are protected"), laconic.compress(llama, method, protect=(6, 19)):
        llama(ids)


def test_held_tokens_become_subject_to_the_rule_afterwards(llama, prompt):
    """A prompt, then a question and answers that are held, then decoding: the sweep catches up, entry by entry."""
    for positions in ("original", "rank"):
        method = TreeKV(tokens=20, positions=positions, tree_only=True)
        with laconic.compress(llama, method) as session:
            with session.hold():
                llama(prompt(1, 40))
                llama(prompt(1, 1), past_key_values=session.cache)
            assert len(session.kept(0)) == 41
            llama(prompt(1, 1), past_key_values=session.cache)
        sinks, candidates, recent = method.split(20)
        tokens = list(range(42))
        want = slow_sweep(tokens[sinks : 42 - recent], candidates, None, older=True)[0]
        assert session.kept(3, 1).tolist() == tokens[:sinks] + want + tokens[42 - recent :]


def test_a_second_turn_by_rank_sees_short_distances(llama, prompt, passes):
    """The question after a compressed context attends as if the kept tokens were all there ever was."""
    with laconic.compress(llama, TreeKV(tokens=12, positions="rank")) as session:
        llama(prompt(1, 60))
        kept = session.kept(0, 1).tolist()
        part = session.cache.layers[0].parts[0]
        with session.hold():
            llama(prompt(1, 4, seed=1), past_key_values=session.cache)
    assert part.columns["rank"][0, 1].tolist() == list(range(16)) and part.kind == "ranked"
    q = passes[0][1][0][0, 2]  # the first query head of KV head 1, at the positions 60 .. 63
    keys = torch.stack([slow_rotate(passes[0][0][1][0, 1, token], -token) for token in kept])
    ranked = torch.stack([slow_rotate(key, r) for r, key in enumerate(keys)])
    queries = torch.stack([slow_rotate(x, 12 + i - (60 + i)) for i, x in enumerate(q)])
    lse = (queries @ ranked.T * 8**-0.5).logsumexp(-1)
    part.length = 12  # look only at the stored ones
    session.cache.step = laconic.step.Step(60, 4, torch.arange(60, 64)[None], [64])
    _, got = part.attend(passes[0][1][0], 8**-0.5, None)
    torch.testing.assert_close(got[0, 2], lse, atol=1e-4, rtol=1e-4)


class Names(TorchDispatchMode):
    """Collects the operators that run."""

    def __init__(self):
        super().__init__()
        self.seen = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.seen.add(func._schema.name)
        return func(*args, **(kwargs or {}))


def test_a_decoding_step_sorts_nothing(llama, prompt):
    def sorting(method):
        with laconic.compress(llama, method) as session, torch.no_grad():
            llama(prompt(2, 30))
            llama(prompt(2, 1), past_key_values=session.cache)
            with Names() as names:
                llama(prompt(2, 1), past_key_values=session.cache)
        return {name for name in names.seen if "sort" in name or "topk" in name}

    assert not sorting(TreeKV(tokens=12)) and not sorting(TreeKV(tokens=12, positions="rank"))


def test_the_published_split_and_small_budgets():
    assert TreeKV().split(1024) == (4, 512, 508)
    for capacity in range(1, 40):
        for method in (TreeKV(), TreeKV(recent=9), TreeKV(sinks=0, recent=0)):
            sinks, candidates, recent = method.split(capacity)
            assert sinks + candidates + recent == capacity and candidates >= 1 and min(sinks, recent) >= 0
    assert TreeKV(sinks=0, recent=0).split(64) == (0, 64, 0)


@pytest.mark.parametrize("wrong", [{"sinks": -1}, {"block": 0}, {"recent": 1.5}, {"positions": "new"}])
def test_impossible_parameters_are_refused(wrong):
    with pytest.raises(ValueError, match=f"treekv: {next(iter(wrong))}="):
        TreeKV(**wrong)
