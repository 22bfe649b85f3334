"""FastKV, line by line of its card's "must show"."""

import pytest
import torch
from helpers.reference import chosen, left_padding, observe, slow_logits, slow_rotate, slow_top
from helpers.slow_scores import slow_pool

import laconic
from laconic import BudgetError, FastKV
from laconic.fit.needles import trials
from laconic.measure.cost import Shape


def slow_scores(obs, window=8, kernel=7, pooling="max"):
    """Sum over the last w queries, max-pooled per query head, sum over the group: [B][Hkv][n - w]."""
    b, h, t, _ = obs.queries.shape
    hkv, n = obs.keys.shape[1:3]
    rows = slow_logits(obs.queries, obs.keys, obs.scale, obs.bias, None, past=n - t).softmax(-1)[:, :, -window:]
    out = [[[0.0] * (n - window) for _ in range(hkv)] for _ in range(b)]
    for bi in range(b):
        for hi in range(h):
            summed = [sum(float(rows[bi, hi, i, j]) for i in range(window)) for j in range(n - window)]
            for j, x in enumerate(slow_pool(summed, kernel, pooling)):
                out[bi][hi // (h // hkv)][j] += x
    return out


def hidden_states(model, ids):
    """Outputs of all decoder layers, recorded by hooks (works inside a session, too)."""
    out = []
    hooks = [
        layer.register_forward_hook(lambda m, a, o: out.append(o[0] if isinstance(o, tuple) else o))
        for layer in model.model.layers
    ]
    try:
        logits = model(ids).logits
    finally:
        for hook in hooks:
            hook.remove()
    return out, logits


def stream_of(session):
    return next(e.stream for e in session.trace.events if e.stream is not None)


# line 1
@pytest.mark.parametrize("parameters", [{"keep": 1.0}, {"keep": 1.0, "tsp_rate": 1.0}, {"tokens": 60, "tsp_tokens": 60}])
def test_neutral_settings_give_identical_logits(llama, prompt, parameters):
    ids = prompt(2, 48)
    want = llama(ids).logits
    with laconic.compress(llama, FastKV(**parameters)):
        torch.testing.assert_close(llama(ids).logits, want, atol=1e-5, rtol=1e-5)


# line 2
def test_everything_kept_but_half_the_stream(llama, prompt):
    n = 60
    ids = prompt(2, n)
    full, _ = hidden_states(llama, ids)
    with laconic.compress(llama, FastKV(keep=1.0, tsp_rate=0.4)) as session:
        short, logits = hidden_states(llama, ids)
    assert session.stats.entries == [n, n, int(n * 0.4), int(n * 0.4)]
    assert session.stats.stream == {0: n, 1: n, 2: 24, 3: 24}
    for layer in (0, 1):
        torch.testing.assert_close(short[layer], full[layer], atol=1e-5, rtol=1e-5)
    assert short[2].shape == short[3].shape == (2, 24, 32) and logits.shape[1] == 24


# line 3
def test_without_a_shorter_stream_it_is_snapkv_with_sums_and_max_pooling():
    seen = observe(n=41, hkv=2, h=6, targets=[20, 20])
    selection = FastKV(keep=0.5, tsp_rate=1.0).select(seen)
    scores = slow_scores(seen)
    for b in range(2):
        for h in range(2):
            assert chosen(selection, b, h) == slow_top(scores[b][h], 20 - 8) + list(range(33, 41))


# line 4
@pytest.mark.parametrize(("rate", "tokens"), [(0.5, None), (0.3, None), (None, 25)])
def test_the_list_of_travellers_equals_the_loop(rate, tokens):
    n = 61
    seen = observe(n=n, layer=1)
    method = FastKV(tsp_rate=rate, tsp_tokens=tokens)
    m = tokens or int(n * rate)
    got = method.stream(seen)
    votes = slow_scores(seen)
    for b in range(2):
        total = [sum(votes[b][h][j] for h in range(2)) for j in range(n - 8)]
        want = slow_top(total, m - 8) + list(range(n - 8, n))
        assert got[b].tolist() == want and len(want) == m
    assert method.stream(observe(n=n, layer=0)) is None and method.stream(observe(n=n, layer=2)) is None


def test_padding_does_not_travel():
    n, pad = 61, 20
    valid = left_padding(n, pad, 0)
    got = FastKV(tsp_rate=0.5).stream(observe(n=n, layer=1, valid=valid))
    assert got.shape == (2, 30)
    real = [j for j in got[0].tolist() if j >= pad]
    assert len(real) == int((n - pad) * 0.5) and real[-8:] == list(range(n - 8, n))


# lines 4, 8, 9
@pytest.mark.parametrize(("keep", "rate"), [(0.1, 0.2), (0.3, 0.5), (0.2, 0.7)])
def test_entries_positions_and_counts_on_a_model(llama, prompt, keep, rate):
    n = 100
    seen_positions = []
    original = laconic.stream.seam.gather
    assert original is not None
    hooks = [
        layer.self_attn.register_forward_pre_hook(
            lambda m, a, k: seen_positions.append((k["position_embeddings"][0].clone(), k["hidden_states"].shape[1])),
            with_kwargs=True,
        )
        for layer in llama.model.layers
    ]
    try:
        with laconic.compress(llama, FastKV(keep=keep, tsp_rate=rate)) as session:
            llama(prompt(2, n))
            travellers = stream_of(session)
            entries = session.stats.entries
            deep = [session.kept(3, h, b).tolist() for b in range(2) for h in range(2)]
            seen_positions_prefill, seen_positions = list(seen_positions), []
            llama(prompt(2, 1, seed=5), past_key_values=session.cache)
            decoded = [session.kept(i, 1, 1)[-1].item() for i in range(4)]
    finally:
        for hook in hooks:
            hook.remove()
    m = int(n * rate)
    assert entries == [int(n * keep)] * 2 + [int(m * keep / rate + 1e-9)] * 2
    for b in range(2):
        for h in range(2):
            assert set(deep[2 * b + h]) <= set(travellers[b].tolist())
    cos = llama.model.rotary_emb(torch.zeros(1), torch.arange(n + 1)[None])[0][0]
    for layer, (phase, tokens) in enumerate(seen_positions_prefill):
        assert tokens == (n if layer < 2 else m)
        for b in range(2):
            want = cos[:n] if layer < 2 else cos[travellers[b]]
            torch.testing.assert_close(phase[b if phase.shape[0] > 1 else 0], want)
    assert decoded == [n] * 4


# line 5
def test_what_travels_is_the_output_of_the_whole_selection_layer(llama, prompt):
    ids = prompt(1, 60)
    full, _ = hidden_states(llama, ids)
    inputs = []
    hook = llama.model.layers[2].register_forward_pre_hook(
        lambda m, a, k: inputs.append(a[0] if a else k["hidden_states"]), with_kwargs=True
    )
    try:
        with laconic.compress(llama, FastKV(keep=1.0, tsp_rate=0.4)) as session:
            taken = []
            inner = llama.model.layers[2].input_layernorm.register_forward_pre_hook(lambda m, a: taken.append(a[0]))
            llama(ids)
            inner.remove()
    finally:
        hook.remove()
    travellers = stream_of(session)[0]
    torch.testing.assert_close(taken[0][0], full[1][0, travellers], atol=1e-5, rtol=1e-5)
    # gathering before the MLP gives the same (it is token-wise); gathering before the attention does not
    layer = llama.model.layers[1]
    phases = llama.model.rotary_emb(full[0], torch.arange(60)[None])
    some = full[0][:, travellers]
    gathered = tuple(p[:, travellers] for p in phases)
    early = layer(some, position_embeddings=gathered, attention_mask=None, position_ids=travellers[None])
    early = early[0] if isinstance(early, tuple) else early
    assert (early[0] - taken[0][0]).abs().max() > 1e-2


# line 6
def test_the_deep_half_runs_at_original_positions(llama, prompt):
    n = 60
    ids = prompt(1, n)
    with laconic.compress(llama, FastKV(keep=1.0, tsp_rate=0.4)) as session:
        _, logits = hidden_states(llama, ids)
    travellers = stream_of(session)
    full, _ = hidden_states(llama, ids)

    def deep(positions):
        x = full[1][:, travellers[0]]
        phases = llama.model.rotary_emb(x, positions)
        for layer in llama.model.layers[2:]:
            x = layer(x, position_embeddings=phases, attention_mask=None, position_ids=positions)
            x = x[0] if isinstance(x, tuple) else x
        return llama.lm_head(llama.model.norm(x))

    torch.testing.assert_close(deep(travellers), logits, atol=1e-4, rtol=1e-4)
    assert (deep(torch.arange(24)[None]) - logits).abs().max() > 1e-2


# line 7
@pytest.mark.parametrize("rate", [0.5, 0.2])
def test_counted_flops_match_the_two_ratio_formulas(make_llama, prompt, rate):
    model = make_llama(layers=6)
    n, layer, layers = 200, 2, 6
    with laconic.compress(model, FastKV(keep=0.1, tsp_rate=rate)) as session:
        model(prompt(1, n), logits_to_keep=1)
    with laconic.compress(model) as whole:
        model(prompt(1, n), logits_to_keep=1)
    shape = Shape.of(model, model.model)
    linear = sum(2 * shape.weights[i] * t for i, t in session.stats.stream.items())
    linear_full = sum(2 * w * n for w in shape.weights)
    head = 2 * shape.head_weights
    assert linear / linear_full == pytest.approx(((layer + 1) + (layers - layer - 1) * rate) / layers, rel=0.01)
    attention = session.stats.prefill_flops - linear - head
    attention_full = whole.stats.prefill_flops - linear_full - head
    assert attention / attention_full == pytest.approx(((layer + 1) + (layers - layer - 1) * rate**2) / layers, rel=0.01)


# line 10
def test_selecting_at_half_depth_keeps_the_answer_and_at_the_first_layer_does_not():
    """Log-probability of the answer to a planted fact; layer 0 of four stands for an eighth of the depth."""
    model, tokenizer = laconic.load("testbed/lm")

    def answer_log_prob(prompt, *methods):
        answer = tokenizer.encode(prompt.answer, add_special_tokens=False)
        with torch.inference_mode(), laconic.compress(model, *methods) as session:
            first = model(input_ids=torch.tensor([prompt.ids]), logits_to_keep=1).logits
            with session.hold():
                rest = model(input_ids=torch.tensor([answer[:-1]]), past_key_values=session.cache).logits
        chosen = torch.cat([first, rest], 1)[0].log_softmax(-1)
        return float(chosen.gather(1, torch.tensor(answer)[:, None]).sum())

    lost = {0: 0.0, 1: 0.0}
    for prompt in trials(tokenizer, (256, 512), depths=3, needles=1, seed=5):
        whole = answer_log_prob(prompt)
        for layer in lost:
            method = FastKV(keep=1.0, tsp_rate=0.2, tsp_layer=layer)
            lost[layer] += abs(answer_log_prob(prompt, method) - whole) / 6
    assert lost[1] < 0.5 * lost[0]


def test_the_paper_s_example_of_the_formulas():
    ratios = [((15 + 1) + (32 - 15 - 1) * 0.2**power) / 32 for power in (1, 2)]
    assert ratios == pytest.approx([0.60, 0.52])


def test_rolled_up_choices():
    method = FastKV()
    assert (method.keep, method._rate, method.window, method.kernel, method.pooling) == (0.1, 0.2, 8, 7, "max")
    assert method.shortens_from(32) == 16  # layer 15 of 32 selects, as published
    assert FastKV(tsp_layer=3).shortens_from(32) == 4
    assert FastKV(keep=1.0).shortens_from(32) is None
    with pytest.raises(BudgetError, match="tsp_layer=9"):
        FastKV(tsp_layer=9).shortens_from(4)
    with pytest.raises(BudgetError, match=r"tsp_rate=1\.5"):
        FastKV(tsp_rate=1.5)
    with pytest.raises(BudgetError, match="tsp_tokens=0"):
        FastKV(tsp_tokens=0)


def test_a_large_capacity_does_not_switch_the_selection_off(llama, prompt):
    """Pitfall of the card: with capacity >= n the code skips the selection as well; here they are independent."""
    with laconic.compress(llama, FastKV(tokens=500, tsp_tokens=20)) as session:
        llama(prompt(1, 60))
    assert session.stats.entries == [60, 60, 20, 20]


def test_selection_is_rotated_by_nothing_of_ours():
    """The reference rotation used above turns a vector and keeps its length."""
    x = torch.randn(8)
    assert slow_rotate(x, 5).norm() == pytest.approx(float(x.norm()), rel=1e-5)
