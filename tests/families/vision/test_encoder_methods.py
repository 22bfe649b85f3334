"""VisionZip, PruMerge and ToMe on every vision class: what the decoder gets, against loops over tokens."""

import pytest
import torch
from helpers.vision_zoo import CASES

from laconic import UnsupportedModelError, compress
from laconic.families.base import GENERIC
from laconic.families.vision import vision_family_of
from laconic.methods.encoder.prumerge import PruMerge
from laconic.methods.encoder.tome import ToMe
from laconic.methods.encoder.visionzip import VisionZip

MERGING = ["internvl", "qwen2_vl", "qwen2_5_vl", "qwen3_vl"]
NEXT = {"max_new_tokens": 3, "do_sample": False}


def session_of(model, method, inputs):
    """The session after `generate()`, and what decoder layer 0 got: embeddings [B, m, D], keyword arguments."""
    seen = []
    with compress(model, method) as session:
        first = GENERIC.stack(model).layers[0]
        handle = first.register_forward_pre_hook(
            lambda module, args, kwargs: seen.append((args[0], kwargs)), with_kwargs=True
        )
        model.generate(**inputs, **NEXT)
        handle.remove()
    return session, *seen[0]


def token_patches(span):
    """Patches [p] of every token of a view that is not resampled, in the order of `span.tokens`."""
    (rows, cols), (height, width) = span.grid, span.patches.shape
    high, wide = height // rows, width // cols
    blocks = [span.patches[r * high : (r + 1) * high, c * wide : (c + 1) * wide] for r in range(rows) for c in range(cols)]
    return [block.flatten() for block, cell in zip(blocks, span.cells.flatten().tolist(), strict=True) if cell >= 0]


def scores_and_keys(visual, span, layer):
    """Attention [n] and keys [n, d] of tokens, means over their patches and heads."""
    a = visual.cls_attention(span, layer) if visual.has_cls else visual.received_attention(span, layer)
    keys = visual.keys(span, layer)
    flat = {int(patch): (a[:, i, j].sum(), keys[:, i, j].mean(0)) for (i, j), patch in number(span)}
    tokens = token_patches(span)
    return (
        torch.stack([sum(flat[int(p)][0] for p in patches) / len(patches) for patches in tokens]),
        torch.stack([sum(flat[int(p)][1] for p in patches) / len(patches) for patches in tokens]),
    )


def two_images(name):
    case = CASES[name]
    alone = {"batch_num_images": torch.tensor([2])} if name == "llava_onevision" else {}  # no crops
    return case.inputs([[case.image(i, plain=True) for i in range(2)]]) | alone


def vectors(model, visual, span, name):
    """The vectors that are mixed, and how the decoder reads a mixture."""
    if name in MERGING:
        return visual.features(span), lambda x: x
    return visual.patches(span).flatten(0, 1), model.model.multi_modal_projector


def assert_views(hidden, visual, want):
    """Every view of one row begins with what `want(span)` gives."""
    gone = 0
    for span in visual.spans:
        tokens = want(span)
        start = int(span.tokens.min()) - gone
        torch.testing.assert_close(hidden[0, start : start + len(tokens)], tokens, rtol=1e-4, atol=1e-4)
        gone += len(span.tokens) - len(tokens)
    assert gone


def number(span):
    height, width = span.patches.shape
    return [((i, j), span.patches[i, j]) for i in range(height) for j in range(width)]


def zipped(a, keys, x, dominant, contextual):
    """VisionZip of one view, by loops: [d + c, D]."""
    n = len(a)
    first = sorted(sorted(range(n), key=lambda j: (-float(a[j]), j))[:dominant])
    rest = [j for j in range(n) if j not in first]
    centers = [rest[i * (len(rest) // contextual)] for i in range(contextual)]
    unit = keys / keys.norm(dim=-1, keepdim=True)
    out = [x[j] for j in first]
    for c in centers:
        mine = [j for j in rest if j not in centers and max(centers, key=lambda o: float(unit[j] @ unit[o])) == c]
        out.append(x[c] + (sum(x[j] for j in mine) / len(mine) if mine else 0))
    return torch.stack(out)


@pytest.mark.parametrize("name", ["llava_onevision", *MERGING])
def test_visionzip_scores_patches_and_works_on_tokens(vlm, seen, name):
    """Received attention without CLS, pooled to tokens where the model merges patches, features after the merger."""
    model, inputs = vlm(name), two_images(name)
    layer = vision_family_of(model).feature_layer(model)
    visual = seen(model, inputs, [layer])
    n = len(visual.spans[0].tokens)
    dominant, contextual = n // 2 - 1, 1 + n // 8
    _, hidden, _ = session_of(model, VisionZip(dominant=dominant, contextual=contextual), inputs)

    def want(span):
        x, read = vectors(model, visual, span, name)
        return read(zipped(*scores_and_keys(visual, span, layer), x, dominant, contextual))

    assert_views(hidden, visual, want)


@pytest.mark.parametrize("name", ["llava_onevision", *MERGING])
def test_prumerge_joins_heads_and_pools_what_a_token_receives(vlm, seen, name):
    model, inputs = vlm(name), two_images(name)
    visual = seen(model, inputs, [2])
    heads = visual.calls["image"].heads[2]
    skip = int(visual.has_cls)

    def want(span):
        """Patches of a span are consecutive, and so are the encoder's segments that have as many."""
        first, area = int(span.patches.min()), span.patches.numel()
        start = first + skip * (first // area + 1)
        around = slice(start - skip, start + area)
        if heads.bounds[1] - heads.bounds[0] < area:
            pytest.skip("windows, not whole images")
        q, k = (x.transpose(0, 1).flatten(1)[around] for x in (heads.queries, heads.keys))
        rows = (q @ k.T / q.shape[-1] ** 0.5).softmax(-1)
        a, k = (rows[0] if skip else rows.mean(0))[skip:], k[skip:]
        tokens = [patches - first for patches in token_patches(span)]
        a, keys = torch.stack([a[p].sum() for p in tokens]), torch.stack([k[p].mean(0) for p in tokens])
        n = len(tokens)
        kept = sorted(range(n), key=lambda j: (-float(a[j]), j))[: n // 2 - 1]
        x, read = vectors(model, visual, span, name)
        unit = keys / keys.norm(dim=-1, keepdim=True)
        out = []
        for i in kept:
            near = sorted((j for j in range(n) if j != i), key=lambda j: -float(unit[i] @ unit[j]))[:2]
            out.append(x[i] + sum(a[j] * x[j] for j in near))
        return read(torch.stack([*out, sum(a[j] * x[j] for j in range(n) if j not in kept)]))

    _, hidden, _ = session_of(model, PruMerge(keep=0.5, neighbours=2), inputs)
    assert_views(hidden, visual, want)


@pytest.mark.parametrize("method", [VisionZip, PruMerge])
@pytest.mark.parametrize("name", CASES)
def test_budgets_are_met_with_several_views_and_rows(vlm, name, method):
    model, case = vlm(name), CASES[name]
    rows = [[case.image(0, tiles=3)], [case.image(1), case.image(2)]]
    session, _, _ = session_of(model, method(keep=0.5), case.inputs(rows))
    assert session.stats.achieved == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("name", MERGING)
def test_order_and_positions_hold_with_several_positions_per_token(vlm, name):
    """A plain decoder on the same embeddings and positions gives the same answer."""
    model, case = vlm(name), CASES[name]
    inputs = case.inputs([[case.image(0, tiles=2)]])
    stack = GENERIC.stack(model)
    with compress(model, VisionZip(keep=0.5)):
        seen = []
        handle = stack.layers[0].register_forward_pre_hook(lambda m, a, kw: seen.append((a[0], kw)), with_kwargs=True)
        logits = model(**inputs, logits_to_keep=1).logits
        handle.remove()
    hidden, kwargs = seen[0]
    if name == "qwen3_vl":
        return  # features are added again after layers 0 and 1: the stock decoder needs them too
    phases, mask = kwargs["position_embeddings"], torch.full((hidden.shape[1],) * 2, float("-inf")).triu(1)[None, None]
    for layer in stack.layers:
        hidden = layer(hidden, attention_mask=mask, position_embeddings=phases, position_ids=None)
        hidden = hidden[0] if isinstance(hidden, tuple) else hidden
    torch.testing.assert_close(model.lm_head(stack.norm(hidden))[:, -1], logits[:, -1], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["llava", "llava-full", "llava_next"])
def test_tome_leaves_one_token_per_cluster(vlm, seen, name):
    """Every token that enters is the projected mean of its cluster; line ends and CLS stay."""
    model, case = vlm(name), CASES[name]
    inputs = case.inputs([[case.image(0)], [case.image(1)]])
    plain = seen(model, inputs)
    session, hidden, _ = session_of(model, ToMe(keep=0.5), inputs)
    event = session.trace.events[0]
    for span in plain.spans:
        went = event.merged[span.row, span.tokens]
        clusters = [set(span.tokens[went == row].tolist()) for row in went.unique()]
        assert all(min(cluster) == int(event.merged[span.row, min(cluster)]) for cluster in clusters)
        assert len(clusters) <= 8 and max(map(len, clusters)) > 1
        if span.patches.numel() == len(span.tokens):
            assert len(clusters) == 8
    stays = [set(row[row >= 0].tolist()) for row in event.stream]
    for row in range(2):
        bare = plain.separators[row].nonzero()[:, 0].tolist()
        assert set(bare) <= stays[row]
    assert bool(hidden.isfinite().all())


@pytest.mark.parametrize("name", MERGING)
def test_tome_refuses_encoders_whose_patches_are_merged_in_blocks(vlm, name):
    with pytest.raises(UnsupportedModelError, match="fixed block of patches"):
        compress(vlm(name), ToMe(keep=0.5))
    compress(vlm(name), ToMe(keep=1.0))


def test_tome_on_an_encoder_without_cls_and_not_on_resampled_images(vlm):
    model, case = vlm("llava_onevision"), CASES["llava_onevision"]
    session, *_ = session_of(model, ToMe(keep=0.5), two_images("llava_onevision"))
    assert session.stats.visual_in == 32 and session.stats.visual[0] == 16
    with pytest.raises(UnsupportedModelError, match="resamples"):
        session_of(model, ToMe(keep=0.5), case.inputs([[case.image(0, video=2)]]))


def test_tome_refuses_kernels_without_a_mask(vlm):
    model = CASES["llava"].build()
    model.model.vision_tower.config._attn_implementation = "flash_attention_2"
    with pytest.raises(UnsupportedModelError, match="takes no such mask"):
        compress(model, ToMe(keep=0.5))
    compress(model, ToMe(keep=0.5, proportional=False))
