"""GlobalCom2 against loops written from the paper; numbers in the docstrings are the lines of what it must show."""

import pytest
import torch
import torch.nn.functional as F
from helpers.vision_tools import inputs
from helpers.vision_zoo import CASES, SIDE
from transformers.models.llava_next.modeling_llava_next import unpad_image

import laconic
from laconic import UnsupportedModelError
from laconic.families.vision import VisionWatch, VisualSpan
from laconic.methods.encoder.globalcom2 import GlobalCom2, partition, ratios, resize

SIZES = [(40, 64), (64, 33), (64, 64), (20, 96), (95, 70), (57, 90), (96, 31), (30, 50)]


@pytest.fixture(scope="module")
def zoo():
    models = {}
    return lambda name: models.setdefault(name, CASES[name].build())


def visual_of(model, given):
    found = []
    with VisionWatch(model, [-1]) as watch, torch.no_grad():
        stack = model.base_model.language_model
        handle = stack.layers[0].register_forward_pre_hook(lambda module, args: found.append(watch.visual))
        model(**given)
        handle.remove()
    return found[0]


def kept(model, given, **options):
    """Tokens of every batch row that ran through the LLM, and the session."""
    with laconic.compress(model, GlobalCom2(**options)) as session, torch.no_grad():
        model(**given)
    stream = session.trace.events[0].stream
    return [row[row >= 0].tolist() for row in stream], session


def slow_logits(model, image):
    """Head mean of q_cls . k / sqrt(d) in the last encoder layer, a list of [SIDE * SIDE] per view."""
    tower, out = model.base_model.vision_tower, []
    pixels = CASES["llava_next"].media([image])["pixel_values"][0]
    hidden = tower(pixels, output_hidden_states=True).hidden_states[-2]
    layer = getattr(tower, "vision_model", tower).encoder.layers[-1]
    normed = layer.layer_norm1(hidden)
    heads, d = layer.self_attn.num_heads, layer.self_attn.head_dim
    for view in normed:
        q, k = layer.self_attn.q_proj(view[0]).view(heads, d), layer.self_attn.k_proj(view[1:]).view(-1, heads, d)
        out.append([sum(float(q[h] @ k[i, h]) / d**0.5 for h in range(heads)) / heads for i in range(SIDE**2)])
    return out


def slow_bilinear(rows, height, width):
    """Bilinear with half-pixel centres, loops."""
    h, w = len(rows), len(rows[0])
    out = [[0.0] * width for _ in range(height)]
    for r in range(height):
        for c in range(width):
            y = min(max((r + 0.5) * h / height - 0.5, 0.0), h - 1.0)
            x = min(max((c + 0.5) * w / width - 0.5, 0.0), w - 1.0)
            y0, x0 = int(y), int(x)
            y1, x1, dy, dx = min(y0 + 1, h - 1), min(x0 + 1, w - 1), y - y0, x - x0
            out[r][c] = (rows[y0][x0] * (1 - dx) + rows[y0][x1] * dx) * (1 - dy)
            out[r][c] += (rows[y1][x0] * (1 - dx) + rows[y1][x1] * dx) * dy
    return out


def slow_choice(model, image, share, tau=10.0):
    """(crop, row, column) of every token that stays; crop 0 is the thumbnail."""
    case = CASES["llava_next"]
    maps = slow_logits(model, image)
    rows, cols = case.canvas(image.size)
    order = sorted(range(SIDE**2), key=lambda i: -maps[0][i])[: int(share * SIDE**2)]
    result = [(0, i // SIDE, i % SIDE) for i in order]
    thumb = [maps[0][r * SIDE : (r + 1) * SIDE] for r in range(SIDE)]
    richness = [0.0] * (rows * cols)
    for r in range(SIDE):
        for c in range(SIDE):
            richness[min(r // (SIDE // rows), rows - 1) * cols + min(c // (SIDE // cols), cols - 1)] += thumb[r][c]
    weights = [2.718281828459045 ** ((s - max(richness)) / tau) for s in richness]
    parts = [min(1, share * (1 + w / (sum(weights) + 1e-8) - 1 / len(weights))) for w in weights]
    tall, wide, (height, width) = rows * SIDE, cols * SIDE, image.size
    top = left = 0
    if width / height > wide / tall:
        top = (tall - int(height * wide / width)) // 2
    else:
        left = (wide - int(width * tall / height)) // 2
    above = slow_bilinear(thumb, tall - 2 * top, wide - 2 * left)
    for crop in range(rows * cols):
        y, x = crop // cols * SIDE, crop % cols * SIDE
        cells = [(i // SIDE, i % SIDE) for i in range(SIDE**2)]
        cells = [(r, c) for r, c in cells if top <= y + r < tall - top and left <= x + c < wide - left]
        local = [maps[crop + 1][r * SIDE + c] for r, c in cells]
        seen = [above[y + r - top][x + c - left] for r, c in cells]
        norms = [sum(v * v for v in values) ** 0.5 for values in (local, seen)]
        scores = [a / norms[0] + b / norms[1] for a, b in zip(local, seen, strict=True)]
        best = sorted(range(len(cells)), key=lambda i: -scores[i])[: max(1, int(len(cells) * parts[crop]))]
        result += [(crop + 1, *cells[i]) for i in best] if cells else []
    return set(result), parts


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("share", [0.3, 0.75])
def test_choice_equals_the_loops(zoo, size, share):
    """6, 9: indices, raster order, line ends, the number of tokens."""
    case, model = CASES["llava_next"], zoo("llava_next")
    image = case.image(3, size=size)
    cells = case.cells(image)
    expected, parts = slow_choice(model, image, share)
    (rows,), session = kept(model, case.inputs([[image]]), keep=share)
    assert rows == sorted(rows)
    got = [cells[token - 2] for token in rows if 2 <= token < 2 + len(cells)]
    assert {(crop, r, c) for crop, _, r, c in filter(None, got)} == expected
    line_ends = [cell for cell in cells if cell is None]
    assert got.count(None) == len(line_ends)
    valid = [sum(cell is not None and cell[0] == crop + 1 for cell in cells) for crop in range(len(parts))]
    counts = [int(share * SIDE**2), *(max(1, int(n * part)) for n, part in zip(valid, parts, strict=True) if n)]
    assert session.stats.visual[0] == sum(counts)


@pytest.mark.parametrize("size", [(64, 64), (64, 32), (32, 96)])
def test_without_padding_there_is_a_line_end_for_every_row_of_the_canvas(zoo, size):
    """6, 9: P_h * g of them."""
    case = CASES["llava_next"]
    image = case.image(1, size=size)
    (rows,), _ = kept(zoo("llava_next"), case.inputs([[image]]), keep=0.3)
    cells = case.cells(image)
    ends = [token for token in rows if 2 <= token < 2 + len(cells) and cells[token - 2] is None]
    assert len(ends) == case.canvas(size)[0] * SIDE


@pytest.mark.parametrize("name", ["llava_next", "llava_onevision"])
def test_a_full_budget_leaves_the_models_own_sequence(zoo, name):
    """1: also where the method runs, with a budget above the prompt."""
    case, model = CASES[name], zoo(name)
    given = case.inputs([[case.image(0, size=(57, 90))], [case.image(1, size=(40, 64)), case.image(2)]])
    plain = model(**given).logits
    for budget in ({"keep": 1.0}, {"tokens": 10**6}):
        with laconic.compress(model, GlobalCom2(**budget)) as session, torch.no_grad():
            torch.testing.assert_close(model(**given).logits[:, -1], plain[:, -1], atol=1e-5, rtol=1e-5)
        assert session.stats.visual[0] == session.stats.visual_in


def test_shares_of_crops():
    """2."""
    torch.manual_seed(0)
    for n in (2, 4, 6):
        richness = torch.randn(n) * 20
        parts = ratios(richness, 0.4, 10.0)
        assert float(parts.mean()) == pytest.approx(0.4, abs=1e-6)
        assert parts[richness.argsort()].diff().min() >= 0
        torch.testing.assert_close(ratios(torch.full((n,), 3.0), 0.4, 10.0), torch.full((n,), 0.4))
    assert float(ratios(torch.tensor([0.0, 900.0]), 0.9, 10.0).max()) == 1  # cut


@pytest.mark.parametrize("side", [24, 5, 4, 2])
@pytest.mark.parametrize("grid", [(2, 2), (1, 3), (3, 1), (3, 2)])
def test_the_partition_covers_every_cell_once(side, grid):
    """3: the last crop takes the remainder."""
    owner = partition((side, side), grid)
    assert owner.shape == (side, side)
    for r in range(side):
        for c in range(side):
            row, col = (min(x // max(1, side // parts), parts - 1) for x, parts in zip((r, c), grid, strict=True))
            assert owner[r, c] == row * grid[1] + col
    if side >= max(grid):
        assert owner.unique().tolist() == list(range(grid[0] * grid[1]))


@pytest.mark.parametrize("size", SIZES)
def test_valid_rectangles_are_those_of_the_models_own_unpad(zoo, size):
    """4."""
    case, model = CASES["llava_next"], zoo("llava_next")
    image = case.image(0, size=size)
    rows, cols = case.canvas(size)
    visual = visual_of(model, case.inputs([[image]]))
    whole, *crops = visual.of(0, 0)
    canvas = torch.arange(rows * cols * SIDE**2).view(rows, cols, SIDE, SIDE).transpose(1, 2)
    own = unpad_image(canvas.reshape(1, rows * SIDE, cols * SIDE), size)[0]
    seen = torch.rand(SIDE, SIDE)
    tiles = list(GlobalCom2()._tiles(visual, whole, crops, (rows, cols), seen))
    assert sum(len(tokens) for _, tokens, _, _ in tiles) == own.numel()
    above = resize(seen, own.shape)
    place = {int(cell): above.flatten()[i] for i, cell in enumerate(own.flatten())}
    for number, tokens, _, values in tiles:
        mine = [cell for cell in place if cell // SIDE**2 == number]
        assert len(tokens) == len(mine)
        torch.testing.assert_close(values, torch.tensor([place[cell] for cell in mine]))  # the same cells, in raster order


def test_a_ramp_stays_monotone_across_crops(zoo):
    """5."""
    case, size = CASES["llava_next"], (57, 90)
    visual = visual_of(zoo("llava_next"), case.inputs([[case.image(0, size=size)]]))
    whole, *crops = visual.of(0, 0)
    ramp = torch.arange(float(SIDE)).expand(SIDE, SIDE)
    for axis, seen in ((1, ramp), (0, ramp.T)):
        values = torch.full((64, 64), float("nan"))
        for number, _, _, above in GlobalCom2()._tiles(visual, whole, crops, case.canvas(size), seen):
            cells = crops[number].cells >= 0
            r, c = cells.nonzero().unbind(1)
            top, left = number // case.canvas(size)[1] * SIDE, number % case.canvas(size)[1] * SIDE
            values[r + top, c + left] = above
        lines = values[~values.isnan().all(1)][:, ~values.isnan().all(0)]
        assert lines.diff(dim=axis).min() >= 0 and lines.max() > lines.min() + 1
        assert lines.diff(dim=1 - axis).abs().max() < 1e-5


class Maps:
    """Saliency maps without a model: what `_crops` needs of a `Visual`."""

    def __init__(self, maps):
        self.maps = maps

    def cls_attention(self, span, logits):
        return self.maps[span.crop][None]

    def pool(self, span, x):
        return x.flatten()


def test_a_planted_object_gets_the_largest_share_and_is_covered_better():
    """7: against the best by CLS attention in every crop at one ratio, with no more tokens."""
    torch.manual_seed(0)
    side, share, covered = 24, 0.15, []
    maps = [torch.randn(side, side) for _ in range(5)]
    maps[0][13:19, 2:8] += 1.5  # in crop 3 of 1 .. 4, where it is twice as large
    maps[3][2:14, 4:16] += 0.7
    thing = torch.zeros(side, side, dtype=torch.bool)
    thing[2:14, 4:16] = True
    cells = torch.arange(side**2).view(side, side)
    views = [VisualSpan(0, "image", 0, crop, 0, cells, cells) for crop in range(5)]
    pieces = GlobalCom2()._crops(Maps(maps), views, (2, 2), share)
    assert max(range(1, 5), key=lambda j: pieces[j][2]) == 3
    for pick in (pieces, [(cells.flatten(), x.flatten(), share) for x in maps]):
        counts = [int(part * side**2 + 1e-6) for _, _, part in pick]
        covered.append((int(thing.flatten()[pick[3][1].topk(counts[3]).indices].sum()), sum(counts)))
    (ours, spent), (uniform, allowed) = covered
    assert spent <= allowed and ours > 1.5 * uniform


@pytest.mark.parametrize("single", ["top", "all"])
def test_images_of_one_view(vlm, single):
    """8: the best by CLS attention, or everything."""
    given = inputs([(3, 9)])
    (rows,), session = kept(vlm, given, keep=0.25, single=single)
    assert session.stats.visual[0] == (36 if single == "top" else 144)
    if single == "top":
        visual = visual_of(vlm, given)
        score = visual.cls_attention(visual.spans[0], logits=True).mean(0).flatten()
        assert [n - 3 for n in rows if 3 <= n < 147] == score.topk(36).indices.sort().values.tolist()


def test_every_crop_keeps_a_token(zoo):
    case = CASES["llava_next"]
    image = case.image(0, size=(64, 64))
    (rows,), _ = kept(zoo("llava_next"), case.inputs([[image]]), keep=0.02)
    cells = case.cells(image)
    assert sorted(cells[n - 2][0] for n in rows if 2 <= n < 2 + len(cells) and cells[n - 2]) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("size", [(95, 96), (64, 33)])
def test_encoders_without_cls_score_by_cosine(zoo, size):
    """The variant for SigLIP: thumbnails keep what is least like their mean."""
    case, model = CASES["llava_onevision"], zoo("llava_onevision")
    given = case.inputs([[case.image(0, size=size)]])
    visual = visual_of(model, given)
    x = visual.patches(visual.of(0, 0)[0]).flatten(0, 1)
    score = -F.cosine_similarity(x, x.mean(0)[None])
    (rows,), session = kept(model, given, keep=0.5)
    thumb = [n - 2 for n in rows if 2 <= n < 2 + SIDE**2]
    assert thumb == score.topk(SIDE**2 // 2).indices.sort().values.tolist()
    assert 0.4 < session.stats.achieved <= 0.5
    with pytest.raises(UnsupportedModelError, match="saliency='cosine'"):
        laconic.compress(model, GlobalCom2(saliency="logits"))


def test_regions_of_a_resampled_canvas(zoo):
    """Crops that the model stitched and resampled are told apart by their regions."""
    case, model = CASES["llava_onevision"], zoo("llava_onevision")
    model = case.build()
    model.config.vision_aspect_ratio = "anyres_max_2"
    image = case.image(0, size=(96, 96))
    plain = case.media([image])
    features = model.base_model.get_image_features(**plain, return_dict=True).pooler_output[0]
    ids = torch.tensor([[5, 6, *[90] * len(features), 7]])
    visual = visual_of(model, {"input_ids": ids, "attention_mask": torch.ones_like(ids)} | plain)
    whole, canvas = visual.of(0, 0)
    assert canvas.resampled and canvas.patches.shape == (12, 12)
    method = GlobalCom2()
    method.attach(model)
    tiles = list(method._tiles(visual, whole, [canvas], (3, 3), torch.rand(SIDE, SIDE)))
    assert torch.cat([tokens for _, tokens, _, _ in tiles]).sort().values.equal(canvas.tokens.sort().values)
    for number, tokens, _, _ in tiles:
        r, c = torch.isin(canvas.cells, tokens).nonzero().unbind(1)
        rows, cols = canvas.grid
        assert ((r + 0.5) * 3 / rows).int().tolist() == [number // 3] * len(r)
        assert ((c + 0.5) * 3 / cols).int().tolist() == [number % 3] * len(c)


def test_frames_take_the_place_of_crops(zoo):
    """The frame that is unlike the video as a whole keeps most."""
    case, model = CASES["llava_onevision"], zoo("llava_onevision")
    video = case.image(0, video=4)
    for frame in (0, 1, 3):
        video.views[frame] = video.views[0]
    given = case.inputs([[video]])
    (rows,), _ = kept(model, given, keep=0.5, tau=1.0)
    frames = [case.cells(video)[n - 2][1] for n in rows if 2 <= n < 2 + len(case.cells(video)) - 1]
    assert max(range(4), key=frames.count) == 2 and set(frames) == {0, 1, 2, 3}


def test_softmax_scores_are_an_option(zoo):
    case, model = CASES["llava_next"], zoo("llava_next")
    given = case.inputs([[case.image(0, size=(64, 64))]])
    visual = visual_of(model, given)
    score = visual.cls_attention(visual.of(0, 0)[0]).mean(0).flatten()
    (rows,), _ = kept(model, given, keep=0.5, saliency="softmax")
    assert [n - 2 for n in rows if 2 <= n < 2 + SIDE**2] == score.topk(8).indices.sort().values.tolist()


@pytest.mark.parametrize(
    "wrong", [{"tau": 0.0}, {"alpha": 1.5}, {"single": "none"}, {"saliency": "keys"}, {"positions": "x"}]
)
def test_wrong_parameters_are_named(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        GlobalCom2(**wrong)


def test_unknown_places_of_crops_are_an_error(zoo):
    case = CASES["internvl"]
    with pytest.raises(UnsupportedModelError, match="how the crops"):
        kept(zoo("internvl"), case.inputs([[case.image(0, tiles=3)]]), keep=0.5)
