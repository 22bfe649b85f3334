"""Every class, through generate() and a plain call: each token shows the patches that a slow walk predicts."""

import numpy as np
import pytest
import torch
import transformers
from helpers.vision_zoo import CASES, COLOURS, IMAGE, VIDEO

from laconic import UnsupportedModelError
from laconic.families.vision import VisionWatch
from laconic.families.vision.encoder import EncoderAttention

VIDEOS = ["llava_onevision", "qwen2_vl", "qwen2_5_vl", "qwen3_vl"]


def batches(case):
    """A single image; then rows with one, two and no images, of different shapes."""
    one = case.image(1)
    wide, flat = case.image(2, size=(30, 90), tiles=3, grid=(8, 4)), case.image(3, size=(64, 64), tiles=2, grid=(4, 10))
    return {"alone": [[one]], "padded": [[one], [wide, flat], []]}


def walk(case, ids, rows):
    """(row, token) -> (number of its image, cell), from the prompt alone."""
    placed, number = {}, {False: 0, True: 0}
    for row, images in enumerate(rows):
        tokens = [t for t in range(ids.shape[1]) if ids[row, t] in (IMAGE, VIDEO)]
        for image in images:
            for cell in case.cells(image):
                placed[row, tokens.pop(0)] = (number[image.video], image.video, cell)
            number[image.video] += 1
        assert not tokens
    return placed


def placed_by(visual):
    found = {}
    for span in visual.spans:
        for r in range(span.grid[0]):
            for c in range(span.grid[1]):
                token = int(span.cells[r, c])
                if token >= 0:
                    assert (span.row, token) not in found, "two cells on one token"
                    cell = (span.crop, span.frame, r, c)
                    found[span.row, token] = (span.image, span.modality == "video", cell)
    for row, token in visual.separators.nonzero().tolist():
        assert (row, token) not in found
        found[row, token] = None
    return found


def check_places(case, visual, ids, rows):
    expected, found = walk(case, ids, rows), placed_by(visual)
    assert found.keys() == expected.keys()
    for key, (image, video, cell) in expected.items():
        assert found[key] == (None if cell is None else (image, video, cell)), key
    mask = torch.zeros_like(ids, dtype=torch.bool)
    for row, token in expected:
        mask[row, token] = True
    assert torch.equal(visual.mask, mask)
    for span in visual.spans:
        inside = [t for t in span.cells.flatten().tolist() if t >= 0]
        assert (span.start, span.stop) == ((min(inside), max(inside) + 1) if inside else (0, 0))


@pytest.mark.parametrize("plain", [False, True], ids=["generate", "call"])
@pytest.mark.parametrize("batch", ["alone", "padded"])
@pytest.mark.parametrize("name", CASES)
def test_places(vlm, seen, name, batch, plain):
    case = CASES[name]
    rows = batches(case)[batch]
    inputs = case.inputs(rows)
    visual = seen(vlm(name), inputs, plain=plain)
    check_places(case, visual, inputs["input_ids"], rows)


def block_of(case, image, span, r, c):
    """Colours of the patches that a token shows, [block, block]."""
    size = 2 if image.video else case.block
    view = case.view(image, span.crop, span.frame)
    return view[r * size : (r + 1) * size, c * size : (c + 1) * size]


@pytest.mark.parametrize("batch", ["alone", "padded"])
@pytest.mark.parametrize("name", CASES)
def test_features_are_those_of_the_colours_in_each_cell(vlm, seen, name, batch):
    """A blind encoder sees one patch at a time: the feature of a token is that of an image made only of its block."""
    case, model = CASES[name], vlm(name, blind=True)
    rows = batches(case)[batch]
    visual = seen(model, case.inputs(rows))
    images = [image for row in rows for image in row]
    features, blocks = [], []
    for span in visual.spans:
        image, values = images[span.image], visual.features(span)
        assert values.shape == (len(span.tokens), model.config.text_config.hidden_size)
        cells = [(r, c) for r in range(span.grid[0]) for c in range(span.grid[1]) if span.cells[r, c] >= 0]
        assert len(cells) == len(values)
        features += list(values)
        blocks += [block_of(case, image, span, r, c) for r, c in cells]
    different = {block.tobytes(): block for block in blocks}
    alone = [x[-1] for x in case.features(model, [case.single(block) for block in different.values()])]
    table = dict(zip(different, alone, strict=True))
    assert_apart(torch.stack(alone), 1e-2)
    wanted = torch.stack([table[block.tobytes()] for block in blocks])
    torch.testing.assert_close(torch.stack(features), wanted, atol=1e-5, rtol=1e-4)


def assert_apart(vectors, least):
    """No two of them are alike."""
    assert (torch.cdist(vectors, vectors) + torch.eye(len(vectors)) * 1e3).min() > least


@pytest.mark.parametrize("name", CASES)
def test_patches_are_those_of_their_colours(vlm, seen, name):
    """Before projector and merger: equal colours give equal vectors, and different colours different ones."""
    case, model = CASES[name], vlm(name, blind=True)
    rows = batches(case)["padded"]
    visual = seen(model, case.inputs(rows))
    images = [image for row in rows for image in row]
    views = [torch.from_numpy(case.view(images[span.image], span.crop, span.frame)) for span in visual.spans]
    used = torch.cat([view.flatten() for view in views]).unique()
    table = torch.zeros(len(COLOURS), 24)
    table[used] = case.encoded(model, used)
    assert_apart(table[used], 1e-3)
    for span, view in zip(visual.spans, views, strict=True):
        torch.testing.assert_close(visual.patches(span), table[view], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", CASES)
def test_separators_are_line_ends(vlm, seen, name):
    """Placeholders without a patch: image_newline in any-resolution classes, CLS with "full" features, none elsewhere."""
    case, model = CASES[name], vlm(name)
    visual = seen(model, case.inputs(batches(case)["padded"]))
    count = int(visual.separators.sum())
    if "next" in name or "onevision" in name:
        flat = visual.calls["image"].packed()
        newline = (flat == model.model.image_newline).all(-1)
        assert torch.equal(newline, visual.separators[visual.mask])
    else:
        assert count == (3 if name == "llava-full" else 0)


@pytest.mark.parametrize("name", VIDEOS)
def test_frames(vlm, seen, name):
    """Videos beside an image and alone in a row: frames by number, features of blocks averaged or merged."""
    case, model = CASES[name], vlm(name, blind=True)
    clips = [case.image(seed, video=3) for seed in (4, 5)]
    rows = [[clips[0]], [case.image(1), clips[1]]]
    inputs = case.inputs(rows)
    visual = seen(model, inputs)
    check_places(case, visual, inputs["input_ids"], rows)
    for span in (span for span in visual.spans if span.modality == "video"):
        view = case.view(clips[span.image], 0, span.frame)
        expected = case.encoded(model, torch.from_numpy(view).flatten()).view(*view.shape, -1)
        torch.testing.assert_close(visual.patches(span), expected, atol=1e-5, rtol=1e-4)
        features = visual.features(span)
        for i, (r, c) in enumerate((r, c) for r in range(span.grid[0]) for c in range(span.grid[1])):
            block = block_of(case, clips[span.image], span, r, c)
            if name == "llava_onevision":
                units = [case.single(np.array([[k]])) for k in block.flatten()]
                expected = sum(x[0] for x in case.features(model, units)) / 4
            else:
                expected = case.features(model, [case.single(block)])[0][0]
            torch.testing.assert_close(features[i], expected, atol=1e-5, rtol=1e-4)
    assert [span.frame for span in visual.of(1, 1, "video")] == [0, 1, 2]


@pytest.mark.parametrize("name", CASES)
def test_pool_makes_tokens_of_patches(vlm, seen, name):
    """Values of patches become values of tokens the way the class merges: blocks of 2x2 or one by one."""
    case = CASES[name]
    visual = seen(vlm(name), case.inputs(batches(case)["padded"]))
    for span in visual.spans:
        values = torch.randn(*span.patches.shape, 3, generator=torch.Generator().manual_seed(span.start))
        pooled = visual.pool(span, values)
        i = 0
        for r in range(span.grid[0]):
            for c in range(span.grid[1]):
                if span.cells[r, c] < 0:
                    continue
                b = case.block
                mean = sum(values[r * b + y, c * b + x] for y in range(b) for x in range(b)) / b**2
                torch.testing.assert_close(pooled[i], mean)
                i += 1
        assert i == len(pooled)


def test_frames_of_odd_sides_are_pooled_as_the_model_pools(vlm, seen):
    """OneVision's real sides are 27 -> 14: bilinear weights, not blocks."""
    visual = seen(vlm("llava_onevision"), CASES["llava_onevision"].inputs([[CASES["llava_onevision"].image(1, video=2)]]))
    span = visual.spans[0]
    values = torch.randn(5, 5, 32)
    odd = type(span)(0, "video", 0, 0, 0, torch.arange(9).view(3, 3), torch.zeros(5, 5), True)
    core = vlm("llava_onevision").model
    side = core.config.vision_config.image_size
    try:
        core.config.vision_config.image_size = 40
        expected = core.apply_pooling(values.view(1, 25, 32))[0]
    finally:
        core.config.vision_config.image_size = side
    torch.testing.assert_close(visual.pool(odd, values), expected)


@pytest.mark.skipif(transformers.__version__ < "5.19", reason="older transformers encode an image again for each beam")
@pytest.mark.parametrize("name", CASES)
def test_beams_share_one_encoder_call(vlm, seen, name):
    case, model = CASES[name], vlm(name)
    rows = batches(case)["padded"]
    inputs = case.inputs(rows)
    visual = seen(model, inputs, num_beams=2, num_return_sequences=2)
    single = seen(model, inputs)
    for span in single.spans:
        for beam in (2 * span.row, 2 * span.row + 1):
            twin = next(
                s for s in visual.of(beam, span.image, span.modality) if (s.crop, s.frame) == (span.crop, span.frame)
            )
            assert torch.equal(twin.cells, span.cells)
            assert torch.equal(visual.features(twin), single.features(span))
    assert len(visual.spans) == 2 * len(single.spans)


@pytest.mark.parametrize("name", CASES)
def test_positions_are_those_of_the_decoder(vlm, seen, name):
    """One row of positions, or time, height and width; left padding does not count."""
    case, model = CASES[name], vlm(name)
    rows = batches(case)["padded"]
    inputs = case.inputs(rows)
    visual, plain = seen(model, inputs), seen(model, inputs, plain=True)
    mask = inputs["attention_mask"]
    if not name.startswith("qwen"):
        assert torch.equal(visual.positions[0][mask.bool()], (mask.cumsum(1) - 1)[mask.bool()])
        assert visual.positions.shape[0] == plain.positions.shape[0] == 1
        return
    assert visual.positions.shape == (3, *mask.shape)
    assert torch.equal(visual.positions[:, mask.bool()], plain.positions[:, mask.bool()])
    for row, images in enumerate(rows):
        token, position, left = int((mask[row] == 0).sum()), 0, list(images)
        spans = [span for span in visual.spans if span.row == row]
        while token < mask.shape[1]:
            if inputs["input_ids"][row, token] not in (IMAGE, VIDEO):
                assert visual.positions[:, row, token].tolist() == [position] * 3
                token, position = token + 1, position + 1
                continue
            span = spans.pop(0)
            left.pop(0)
            for r in range(span.grid[0]):
                for c in range(span.grid[1]):
                    assert span.cells[r, c] == token
                    assert visual.positions[:, row, token].tolist() == [position, position + r, position + c]
                    token += 1
            position += max(span.grid)
        assert not spans and not left


@pytest.mark.parametrize("name", ["llava_next", "llava_onevision", "internvl", "qwen2_5_vl"])
def test_places_in_half_precision(seen, name):
    case = CASES[name]
    rows = batches(case)["padded"]
    inputs = case.inputs(rows)
    half = {k: v.bfloat16() if v.is_floating_point() else v for k, v in inputs.items()}
    visual = seen(case.build().bfloat16(), half, layers=(-1,))
    check_places(case, visual, inputs["input_ids"], rows)
    for span in visual.spans:
        assert visual.features(span).dtype == visual.patches(span).dtype == torch.bfloat16
        assert visual.pool(span, visual.patches(span)).dtype == torch.bfloat16
        assert visual.received_attention(span).dtype == torch.float32


@pytest.mark.parametrize("name", CASES)
def test_project(vlm, seen, name):
    """Patches through the projector are the features; classes that merge first raise an error. The record stays as it
    was."""
    case = CASES[name]
    visual = seen(vlm(name), case.inputs(batches(case)["padded"]))
    for span in visual.spans:
        features, patches = visual.features(span).clone(), visual.patches(span).clone()
        if case.block == 1:
            kept = patches[span.cells >= 0]
            torch.testing.assert_close(visual.project(kept), features, atol=1e-5, rtol=1e-4)
            mixed = visual.project((kept[:2] / 2).sum(0, keepdim=True)) if len(kept) else None
            assert mixed is None or mixed.shape == (1, features.shape[1])
        else:
            with pytest.raises(UnsupportedModelError, match=r"merges blocks of patches .* scores of tokens with pool"):
                visual.project(patches.flatten(0, 1))
        assert torch.equal(visual.features(span), features) and torch.equal(visual.patches(span), patches)


def test_projecting_inside_a_pass_leaves_the_record_alone(vlm):
    case, model = CASES["llava"], vlm("llava")
    inputs = case.inputs([[case.image(1), case.image(2)]])
    with VisionWatch(model) as watch:
        wanted = []

        def early(module, args):
            visual = watch.visual
            before = visual.calls["image"].before
            visual.project(torch.ones(3, before.shape[-1]))
            wanted.append(visual.calls["image"].before is before)

        handle = model.model.language_model.layers[0].register_forward_pre_hook(early)
        model(**inputs)
        handle.remove()
    assert wanted == [True]


def test_attention_of_many_spans_is_computed_once(vlm, seen, monkeypatch):
    case = CASES["llava_next"]
    visual = seen(vlm("llava_next"), case.inputs(batches(case)["padded"]), layers=(-1,))
    calls = []
    original = EncoderAttention.received_attention
    monkeypatch.setattr(EncoderAttention, "received_attention", lambda heads: calls.append(1) or original(heads))
    for span in visual.spans:
        visual.received_attention(span)
    assert len(visual.spans) == 14 and calls == [1]


def test_crop_grids(vlm, seen):
    case = CASES["llava_next"]
    visual = seen(vlm("llava_next"), case.inputs(batches(case)["padded"]))
    assert [visual.crop_grid(k) for k in range(3)] == [(2, 2), (1, 3), (2, 2)]
    assert [span.crop for span in visual.of(1, 1)] == [0, 1, 2, 3]
    case = CASES["internvl"]
    visual = seen(vlm("internvl"), case.inputs(batches(case)["padded"]))
    assert visual.crop_grid(0) == (0, 0)
    assert [span.crop for span in visual.of(1, 1)] == [0, 1, 2]
    with pytest.raises(UnsupportedModelError, match="InternVL model is not told how the crops of image 1 are arranged"):
        visual.crop_grid(1)


def test_unwatched_layers_are_an_error(vlm, seen):
    case = CASES["llava"]
    visual = seen(vlm("llava"), case.inputs([[case.image(1)]]), layers=(-1,))
    visual.cls_attention(visual.spans[0], 2)
    with pytest.raises(ValueError, match=r"layer=0 of the vision encoder was not watched; watched layers: \[2\]"):
        visual.keys(visual.spans[0], 0)
    with pytest.raises(ValueError, match=r"layer=3: this vision encoder has layers 0..2"):
        visual.keys(visual.spans[0], 3)
