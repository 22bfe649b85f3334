"""FastV: the kept tokens, what happens in the layers after the cut, and where its scores come from."""

import pytest
import torch
from helpers.masked_reference import hidden_from, reference_logits
from helpers.planted_vlm import planted, prompt
from helpers.slow_attention import attention, numbers, stay, top
from helpers.vision_exact import generate, run
from helpers.vision_tools import inputs

from laconic import compress
from laconic.methods.tokens.fastv import FastV


def change(model, layer, count, chosen):
    """The slow reference of `exact.run`; `chosen` gets the kept rows."""
    seen = {}

    def before(i, hidden, visual, positions):
        if i == layer:
            at = numbers(visual)
            score = [sum(float(seen[0][h, -1, j]) for h in range(len(seen[0]))) / len(seen[0]) for j in at]
            chosen.extend(at[n] for n in top(score, count))
            return stay(hidden, visual, positions, chosen)
        if i == layer - 1:
            seen[0] = attention(model, i, hidden, positions)
        return hidden, visual, positions

    return before


@pytest.mark.parametrize(
    ("layer", "budget", "count"), [(None, {}, 72), (3, {"ratio": 0.75}, 36), (2, {"keep": 0.5}, 48), (7, {"ratio": 0.9}, 14)]
)
def test_equals_layers_run_by_hand(vlm, layer, budget, count):
    """Must show 2 and 8: kept tokens, positions with gaps, cache lengths per layer, and decoding afterwards."""
    given, kept = inputs([(3, 9)]), []
    with compress(vlm, FastV(layer=layer, **budget)) as session:
        ours = generate(vlm, given)[0]
    k = layer or 1  # 2 of 32 layers in a model of 8, at least 1
    logits, _, lengths = run(vlm, given, change(vlm, k, count, kept))
    assert len(kept) == count
    torch.testing.assert_close(ours, logits, rtol=1e-4, atol=1e-4)
    (event,) = session.trace.events
    assert event.layer == k - 1 and [n for n in event.stream[0].tolist() if 3 <= n < 147] == kept
    assert [x.stored - 3 for x in session.cache.compressed()] == lengths == [156] * k + [12 + count] * (8 - k)
    assert event.scores[0, 3:147].argsort(descending=True)[0] + 3 in kept and event.scores[0, :3].isnan().all()


@pytest.mark.parametrize(("depth", "layer"), [(32, 2), (40, 3), (16, 1), (4, 1)])
def test_the_published_layer_is_two_of_32(depth, layer):
    assert FastV().cuts(depth) == (layer,)


def test_dropping_equals_masking(vlm):
    """Must show 3: in the first release's mask mode later layers keep all tokens and hide the columns; text logits are the
    same, over the prompt's text and over the answer recomputed in one pass."""
    given = inputs([(3, 9)])
    with compress(vlm, FastV(ratio=0.75)) as session, torch.no_grad():
        prompt = vlm(**given).logits[0]
    with compress(vlm, FastV(ratio=0.75)) as session:
        out = vlm.generate(**given, max_new_tokens=4, do_sample=False, output_logits=True, return_dict_in_generate=True)
        hidden = hidden_from(session, 156, 160, 2)
    longer = given | {"input_ids": out.sequences, "attention_mask": torch.ones_like(out.sequences)}
    masked = reference_logits(vlm, longer, hidden)[0]
    torch.testing.assert_close(prompt[-9:], masked[147:156], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(torch.cat(out.logits), masked[155:159], rtol=1e-4, atol=1e-4)
    assert (masked[155:159] - reference_logits(vlm, longer, {})[0, 155:159]).abs().max() > 1e-2


@pytest.mark.parametrize("method", [FastV(ratio=0.0), FastV(keep=1.0), FastV(layer=8, ratio=0.9)])
def test_nothing_to_drop_changes_nothing(vlm, method):
    """Must show 1: R = 0, the neutral budget, K = L."""
    given = inputs([(3, 9), (8, 2)])
    plain = generate(vlm, given)
    with compress(vlm, method):
        torch.testing.assert_close(generate(vlm, given), plain, rtol=1e-5, atol=1e-5)


def test_equal_scores_go_to_the_earlier_token(vlm):
    """Must show 2, ties: with queries of zero, the last token's attention is uniform, so the first tokens stay."""
    weight = vlm.model.language_model.layers[0].self_attn.q_proj.weight
    before = weight.clone()
    weight.zero_()
    try:
        with compress(vlm, FastV(layer=1, ratio=0.75)) as session, torch.no_grad():
            vlm(**inputs([(3, 9)]))
    finally:
        weight.copy_(before)
    assert session.trace.events[0].stream[0].tolist() == [*range(3), *range(3, 39), *range(147, 156)]


def test_first_layer_zero_is_a_seeded_draw(vlm):
    given, kept = inputs([(3, 9)]), []
    for seed in (0, 0, 1):
        with compress(vlm, FastV(layer=0, seed=seed)) as session, torch.no_grad():
            vlm(**given)
        kept.append(session.trace.events[0].stream[0].tolist())
    assert kept[0] == kept[1] != kept[2] and len(kept[0]) == 12 + 72


def test_protected_tokens_stay(vlm):
    with compress(vlm, FastV(ratio=0.9), protect=(10, 15)) as session, torch.no_grad():
        vlm(**inputs([(3, 9)]))
    kept = session.trace.events[0].stream[0].tolist()
    assert set(range(10, 15)) <= set(kept) and len(kept) == 12 + 14


def test_permuted_images_show_the_bias_to_late_places():
    """Must show 10: where keys hardly differ, RoPE decides, so FastV keeps the same late places however the image is
    shuffled. (DivPrune's half of the line is in its own test.)"""
    side, late = 6, []
    model = planted(side)
    block = model.model.language_model.layers[0].self_attn
    block.q_proj.weight[:8, 40] = 2.0  # fast channels: closer tokens weigh more
    block.k_proj.weight[:8, 31] = 2.0
    model.model.language_model.embed_tokens.weight[5, 40] = 3.0
    torch.manual_seed(0)
    vectors = torch.nn.functional.normalize(torch.randn(1, side * side, 32), dim=-1)
    vectors[..., 31] = 3.0
    for _ in range(4):
        order = torch.randperm(side * side)
        with compress(model, FastV(layer=1, ratio=0.75)) as session, torch.no_grad():
            model(**prompt(vectors[:, order], side, [5]))
        late.append([n - 1 for n in session.trace.events[0].stream[0].tolist() if 1 <= n <= side * side])
    assert sum(late[0]) / len(late[0]) > 0.6 * side * side
    for other in late[1:]:
        assert len(set(other) & set(late[0])) > 0.7 * len(late[0])  # chance: a quarter


def test_wrong_parameters_are_refused():
    with pytest.raises(ValueError, match=r"ratio=1\.0"):
        FastV(ratio=1.0)
    with pytest.raises(ValueError, match="layer=-1"):
        FastV(layer=-1)
