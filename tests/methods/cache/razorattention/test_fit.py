"""Head search of RazorAttention."""

import math

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

import laconic
from laconic.artifact import Artifact, fingerprint
from laconic.fit import Trainer
from laconic.methods.cache.razorattention.fit import RazorAttentionFit, copies, scope

VOCAB, CODE, HEAD = 40, 16, 64


# line 6
@pytest.mark.parametrize(("start", "shift"), [(0, 0), (0, 1), (1, 0), (1, 1)])
def test_mass_on_the_right_diagonals_counts_once_per_copy(start, shift):
    period, repeats, p = 5, 4, 0.17
    n = start + period * repeats
    rows = torch.zeros(2, n, n)
    for i in range(n):
        for back in range(1, repeats):
            if i - back * period >= start:
                rows[0, i, i - back * period + shift] = p
    if start or shift:
        rows[1, :, 0] = 1.0  # the first token, a BOS or one that follows nothing, is no copy
    copied = sum((i - start) // period for i in range(start, n))
    got = copies(rows, 0, period, start, shift)
    torch.testing.assert_close(got, torch.tensor([p * copied, 0.0]))
    in_blocks = sum(copies(rows[:, i : i + 4, : i + 4], i, period, start, shift) for i in range(0, n, 4))
    torch.testing.assert_close(in_blocks, got)


def fitted(model, tokenizer, **settings):
    return Trainer(RazorAttentionFit(**settings), model, tokenizer).run()


class Plain:
    """As much of a tokenizer as repeated random tokens need."""

    bos_token_id = None
    all_special_ids = (0, 1)

    def __len__(self):
        return VOCAB


def induction_model() -> LlamaForCausalLM:
    """Two layers made by hand: layer 0, head 1 copies the code of the token before; layer 1, head 0 looks for the place
    whose token before was the current one.

    Hidden: 16 numbers of the token's code (+-1), 16 of the code before, 1 constant, the rest zero. The first RoPE channels
    turn fast and tell the neighbour; the last ones hardly turn and compare codes.
    """
    hidden = 4 * HEAD
    config = LlamaConfig(
        hidden_size=hidden,
        intermediate_size=8,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        head_dim=HEAD,
        vocab_size=VOCAB,
        max_position_embeddings=512,
        rope_theta=10_000.0,
        tie_word_embeddings=False,
    )
    model = LlamaForCausalLM(config).eval()
    slow = [*range(HEAD // 2 - CODE // 2, HEAD // 2), *range(HEAD - CODE // 2, HEAD)]  # channel pairs (i, i + 32), slowest
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim == 2:
                weight.zero_()
        codes = torch.randn(VOCAB, CODE, generator=torch.Generator().manual_seed(0)).sign()
        model.model.embed_tokens.weight[:, :CODE] = codes
        model.model.embed_tokens.weight[:, 2 * CODE] = 1.0
        before = model.model.layers[0].self_attn
        rows = slice(HEAD, 2 * HEAD)  # head 1
        for i in range(16):  # the fast channels: q at its own place looks exactly one step back
            angle = 10_000.0 ** (-2 * i / HEAD)
            before.k_proj.weight[HEAD + i, 2 * CODE] = 4.0
            before.q_proj.weight[HEAD + i, 2 * CODE] = 4.0 * math.cos(angle)
            before.q_proj.weight[HEAD + i + HEAD // 2, 2 * CODE] = -4.0 * math.sin(angle)
        before.v_proj.weight[rows][:CODE, :CODE] = torch.eye(CODE)
        before.o_proj.weight[CODE : 2 * CODE, rows][:, :CODE] = torch.eye(CODE)
        match = model.model.layers[1].self_attn
        for channel, i in zip(slow, range(CODE), strict=True):
            match.q_proj.weight[channel, i] = 3.0
            match.k_proj.weight[channel, CODE + i] = 3.0
    return model


# line 6
def test_a_hand_built_induction_head_comes_first():
    made = fitted(induction_model(), Plain(), tokens=24, repeats=4)
    scores = {(layer, head): s for layer, row in enumerate(made.data["induction"]) for head, s in enumerate(row)}
    first, second = sorted(scores, key=lambda lh: -scores[lh])[:2]
    assert first == (1, 0) and scores[first] > 0.6 and scores[second] < 0.2


def test_scores_of_a_group_are_its_best_head_s(make_llama):
    """The same weights with and without groups: KV heads repeated give the scores of every query head."""
    grouped = make_llama(layers=2)
    single = make_llama(layers=2, kv_heads=4)
    state = grouped.state_dict()
    for name in [k for k in state if "k_proj" in k or "v_proj" in k]:
        state[name] = state[name].view(2, 8, -1).repeat_interleave(2, 0).flatten(0, 1)
    single.load_state_dict(state)
    few, all_heads = (fitted(m, Plain(), tokens=20, repeats=3).data for m in (grouped, single))
    for kind in ("echo", "induction"):
        want = [[max(row[0:2]), max(row[2:4])] for row in all_heads[kind]]
        torch.testing.assert_close(torch.tensor(few[kind]), torch.tensor(want), atol=2e-5, rtol=1e-3)
        assert few[kind] != [[row[0], row[2]] for row in all_heads[kind]]


def test_scores_equal_the_loop(make_llama):
    """Against the model's own attention matrices, summed place by place."""
    model, period, repeats = make_llama(layers=2, implementation="eager"), 9, 3
    made = fitted(model, Plain(), tokens=period, repeats=repeats)
    ids, start = RazorAttentionFit(tokens=period, repeats=repeats)._sequence(model, Plain())
    assert start == 0 and ids.shape == (1, 27) and not {0, 1} & set(ids[0].tolist())
    attentions = model(ids, output_attentions=True).attentions
    for layer, rows in enumerate(attentions):
        for shift, kind in ((0, "echo"), (1, "induction")):
            per_head = [
                sum(float(rows[0, h, i, j + shift]) for i in range(period, 27) for j in range(i - period, -1, -period)) / 18
                for h in range(4)
            ]
            want = [max(per_head[:2]), max(per_head[2:])]
            assert made.data[kind][layer] == pytest.approx(want, abs=2e-5)


def test_a_bos_is_put_in_front_and_is_no_copy(make_llama):
    class Opened(Plain):
        bos_token_id = 1

    made = fitted(make_llama(layers=2), Opened(), tokens=8, repeats=2)
    assert made.data["period"] == 8


def test_what_does_not_fit(make_llama):
    for options, message in (
        ({"repeats": 1}, "at least twice"),
        ({"tokens": 600}, "do not fit"),
        ({"material": "x"}, "choose"),
    ):
        with pytest.raises(ValueError, match=message):
            fitted(make_llama(layers=2), Plain(), **options)


def test_the_shipped_artifact_is_what_a_fit_gives():
    model, tokenizer = laconic.load("testbed/lm")
    shipped = Artifact.load("razorattention-testbed-lm")
    assert shipped.fingerprint == fingerprint(model)
    made = fitted(model, tokenizer, **shipped.settings)
    for kind in ("echo", "induction"):
        torch.testing.assert_close(torch.tensor(made.data[kind]), torch.tensor(shipped.data[kind]), atol=1e-4, rtol=1e-2)


def test_beyond_the_scope_of_an_alibi_head_nothing_weighs():
    """Random inputs after a layer norm: every weight farther away than the scope is below eps."""
    generator = torch.Generator().manual_seed(0)
    hidden, d, n, eps = 12, 4, 400, 1e-3
    query, key = (torch.randn(hidden, d, generator=generator) * 0.2 for _ in range(2))
    gain, offset = torch.rand(hidden, generator=generator) * 0.5, torch.randn(hidden, generator=generator) * 0.1
    x = torch.nn.functional.layer_norm(torch.randn(n, hidden, generator=generator), (hidden,), gain, offset)
    for slope in (0.5, 2.0):
        far = scope(query, key, gain, offset, slope, eps)
        distance = n - 1 - torch.arange(n)
        logits = (x[-1] @ query) @ (x @ key).T - slope * distance
        weights = logits.softmax(-1)
        assert 0 < far < n - 1 and float(weights[distance > far].max()) < eps
        assert scope(query, key, gain, offset, 2 * slope, eps) == pytest.approx(far / 2)
