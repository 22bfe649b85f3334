"""DART against layers run by hand; numbers in the docstrings are the lines of what it must show."""

import pytest
import torch
from helpers.slow_attention import numbers, stay
from helpers.vision_exact import generate, run
from helpers.vision_tools import inputs, random_vlm
from helpers.vision_zoo import CASES
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

import laconic
from laconic import BudgetError
from laconic.methods.tokens.dart import DART, least_like


def keys(model, layer, hidden, positions):
    """Keys of a layer, RoPE applied, heads side by side, [n, Hkv d]."""
    stack = model.model.language_model
    block = stack.layers[layer]
    x = block.input_layernorm(hidden[None])
    k = block.self_attn.k_proj(x).view(1, len(hidden), -1, block.self_attn.head_dim).transpose(1, 2)
    k, _ = apply_rotary_pos_emb(k, k, *stack.rotary_emb(x, positions[None]))
    return k[0].transpose(0, 1).flatten(1)


def slow(seen, norms, visual, text, pivots, text_pivots, shares):
    """Rows that stay: pivots by falling norm, then what each pivot takes; `seen` are normed rows."""
    own = sorted(visual, key=lambda i: (-float(norms[i]), i))[:pivots]
    words = sorted(text, key=lambda i: (-float(norms[i]), i))[:text_pivots]
    kept = list(own)
    for pivot, share in zip([*own, *words], shares, strict=True):
        pool = [i for i in visual if i not in kept]
        alike = {i: float(torch.cosine_similarity(seen[pivot], seen[i], dim=0)) for i in pool}
        kept += sorted(pool, key=lambda i: (alike[i], i))[:share]
    return sorted(kept)


def change(model, layer, pivots, shares, chosen, text_pivots=4):
    """The slow reference of `exact.run`; `chosen` gets the kept rows."""
    norms = {}

    def before(i, hidden, visual, positions):
        if i == layer:
            at = numbers(visual)
            text = [n for n in range(len(hidden)) if n > at[-1]]
            seen = model.model.language_model.norm(hidden)
            chosen.extend(slow(seen, norms[0], at, text, pivots, text_pivots, shares))
            return stay(hidden, visual, positions, chosen)
        if i == layer - 1:
            norms[0] = keys(model, i, hidden, positions).abs().sum(1)
        return hidden, visual, positions

    return before


@pytest.fixture(scope="module")
def tilted():
    """A model whose final norm weighs channels differently, as trained ones do."""
    model = random_vlm()
    weight = model.model.language_model.norm.weight
    weight.copy_(torch.linspace(0.1, 3, len(weight)))
    return model


@pytest.mark.parametrize(
    ("options", "layer", "pivots", "shares"),
    [
        ({}, 1, 4, [3] * 8),  # int(144 * 0.222) = 31, 31 // 8 = 3: 28 stay
        ({"limit": 64, "layer": 2}, 2, 4, [8] * 8),  # 68 stay, as published
        ({"limit": 128}, 1, 4, [16] * 8),  # 132 stay, as published
        ({"keep": 0.5, "layer": 2}, 2, 4, [6] * 4 + [5] * 4),  # 48 after the cut
        ({"keep": 0.25, "layer": 1, "pivots": 3, "text_pivots": 2}, 1, 3, [4, 4, 4, 3, 3]),  # 21
        ({"reduction": 0.5, "layer": 3, "text_pivots": 0}, 3, 4, [18] * 4),
    ],
)
def test_equals_layers_run_by_hand(tilted, options, layer, pivots, shares):
    """1, 2 and 4: pivots and kept set, counts, cache lengths of every layer, decoding afterwards."""
    given, kept = inputs([(3, 9)]), []
    with laconic.compress(tilted, DART(**options)) as session:
        got = generate(tilted, given)[0]
    count = pivots + sum(shares)
    words = options.get("text_pivots", 4)
    logits, _, lengths = run(tilted, given, change(tilted, layer, pivots, shares, kept, words))
    torch.testing.assert_close(got, logits, rtol=1e-4, atol=1e-4)
    (event,) = session.trace.events
    assert event.layer == layer - 1 and len(kept) == count
    assert [n for n in event.stream[0].tolist() if 3 <= n < 147] == kept
    stored = [x.stored - 3 for x in session.cache.compressed()]
    assert stored == lengths == [156] * layer + [12 + count] * (8 - layer)


@pytest.mark.parametrize(("total", "reduction", "kept"), [(576, 0.778, 124), (576, 0.0, 572), (20, 0.778, 4)])
def test_published_counts(total, reduction, kept):
    """2: and the pool never runs out."""
    method, stays = DART(reduction=reduction), torch.zeros(total, dtype=torch.bool)
    stays[:4] = True
    assert 4 + sum(method._shares(stays, 8, None)) == kept
    assert 4 + sum(DART(limit=10**6)._shares(stays, 8, None)) <= total


@pytest.mark.parametrize("tokens", [1, 2, 3, 9])
def test_small_budgets_are_exact(vlm, tokens):
    """At most half of them are pivots."""
    mean = (7 * tokens + 144) / 8
    with laconic.compress(vlm, DART(keep=mean / 144)) as session, torch.no_grad():
        vlm(**inputs([(3, 9)]))
    assert session.stats.visual[1] == tokens
    assert DART()._visual_pivots(144, 4, tokens, 0) == min(4, tokens // 2)
    assert DART(text_pivots=0)._visual_pivots(144, 0, 1, 0) == 1


def test_keys_are_rotated(vlm):
    """3: with all positions equal a permutation of the image permutes the set; with real ones the pivots are others."""
    given, order = inputs([(3, 9)]), torch.randperm(144, generator=torch.Generator().manual_seed(2))
    core = vlm.model
    features = core.get_image_features(given["pixel_values"]).pooler_output[0].clone()

    def kept(x, **more):
        handle = core.multi_modal_projector.register_forward_hook(lambda module, args, output: x[None])
        try:
            with laconic.compress(vlm, DART(limit=16, pivots=16, text_pivots=0, layer=1)) as session, torch.no_grad():
                vlm(**given, **more)
        finally:
            handle.remove()
        return [at - 3 for at in session.trace.events[0].stream[0].tolist() if 3 <= at < 147]

    # before layer 1 the stream has been through layer 0, whose causal mask sees order; so its attention is turned off
    weight = core.language_model.layers[0].self_attn.o_proj.weight
    saved = weight.clone()
    weight.zero_()
    try:
        flat = {"position_ids": torch.zeros(1, 156, dtype=torch.long)}
        assert sorted(order[kept(features[order], **flat)].tolist()) == kept(features, **flat)
        assert sorted(order[kept(features[order])].tolist()) != kept(features)
    finally:
        weight.copy_(saved)


def test_a_copy_of_a_pivot_goes_first():
    """4."""
    x = torch.randn(12, 16, generator=torch.Generator().manual_seed(0))
    x[5] = 2 * x[0]
    stays = torch.zeros(12, dtype=torch.bool)
    stays[0] = True
    assert least_like(x, x[:1], [10], stays).tolist() == [n for n in range(12) if n != 5]


@pytest.mark.parametrize("method", [DART(keep=1.0), DART(layer=8), DART(tokens=144)])
def test_nothing_to_drop_changes_nothing(vlm, method):
    """4."""
    given = inputs([(3, 9), (8, 2)])
    plain = generate(vlm, given)
    with laconic.compress(vlm, method):
        torch.testing.assert_close(generate(vlm, given), plain, rtol=1e-5, atol=1e-5)


def test_the_cut_comes_after_deepstack():
    """Qwen3-VL adds visual features after its first layers, two of them here."""
    case = CASES["qwen3_vl"]
    model, given = case.build(), case.inputs([[case.image(1)]])
    with laconic.compress(model, DART(keep=0.9)) as session, torch.no_grad():
        model(**given)
    assert [event.layer for event in session.trace.events] == [1]
    with pytest.raises(laconic.UnsupportedModelError, match="layer 2 or later"):
        laconic.compress(model, DART(layer=1, keep=0.9)).__enter__()
    assert DART().cuts(32) == (2,) and DART().observes(32) == [1] and DART().cuts(4) == (1,)


def test_protected_tokens_stay(vlm):
    with laconic.compress(vlm, DART(keep=0.2, layer=1, protect=(50, 60))) as session, torch.no_grad():
        vlm(**inputs([(3, 9)]))
    assert set(range(50, 60)) <= set(session.trace.events[0].stream[0].tolist())
    assert session.stats.visual[1] == 12  # (0.2 * 8 - 1) * 144 / 7
    few = DART(keep=0.2, layer=1, protect=(50, 70))
    with pytest.raises(BudgetError, match="20 visual tokens are protected"), laconic.compress(vlm, few):
        vlm(**inputs([(3, 9)]))


def test_text_pivots_follow_the_last_image(vlm):
    with pytest.raises(ValueError, match="no text follows the last image"), laconic.compress(vlm, DART()):
        vlm(**inputs([(3, 0)]))
    with laconic.compress(vlm, DART(text_pivots=0)), torch.no_grad():
        assert bool(vlm(**inputs([(3, 0)])).logits.isfinite().all())


@pytest.mark.parametrize(
    "wrong", [{"layer": 0}, {"pivots": -1}, {"reduction": 1.0}, {"limit": 0}, {"pivots": 0, "text_pivots": 0}]
)
def test_wrong_parameters_are_named(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        DART(**wrong)
