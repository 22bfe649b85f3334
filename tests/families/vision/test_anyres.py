"""Layouts found from packed features, against the models' own packing for random sizes."""

import pytest
import torch
from helpers.vision_zoo import CASES, AnyResCase
from hypothesis import given
from hypothesis import strategies as st
from transformers.models.llava_next.modeling_llava_next import get_anyres_image_grid_shape

from laconic import UnsupportedModelError
from laconic.families.vision import CANVAS
from laconic.families.vision.anyres import AnyRes

SIDE = 4
SIZES = st.lists(st.tuples(st.integers(20, 200), st.integers(20, 200)), min_size=1, max_size=3)


@pytest.fixture(scope="module")
def next_model():
    return CASES["llava_next"].build()


@pytest.fixture(scope="module")
def onevision():
    return CASES["llava_onevision"].build()


def packed_by(model, sizes, seed=0):
    """The model's packing of random features: (packed list, projected [views, 16, D], canvases by image)."""
    grids = [get_anyres_image_grid_shape(size, model.config.image_grid_pinpoints, 32) for size in sizes]
    views = [1 + rows * cols for rows, cols in grids]
    projected = torch.randn(sum(views), SIDE**2, 32, generator=torch.Generator().manual_seed(seed))
    options = {"image_newline": model.model.image_newline}
    if "onevision" not in model.config.model_type:
        options["vision_feature_select_strategy"] = "default"
    packed, _ = model.model.pack_image_features(projected.split(views), torch.tensor(sizes), **options)
    return packed, projected, grids


def layout(model, most=None):
    pinpoints = model.config.image_grid_pinpoints
    canvases = tuple(sorted({(h // 32, w // 32) for h, w in pinpoints}))
    return AnyRes(SIDE, canvases, model.model.image_newline, most)


@given(sizes=SIZES)
def test_next_layouts_are_the_models(next_model, sizes):
    packed, projected, grids = packed_by(next_model, sizes)
    items = layout(next_model).items(packed, projected)
    flat, case = projected.flatten(0, 1), AnyResCase("llava_next", CASES["llava_next"].config, "LlavaNext")
    for item, features, size, grid in zip(items, packed, sizes, grids, strict=True):
        assert (item.tokens, item.crop_grid) == (len(features), grid)
        assert [view.crop for view in item.views] == list(range(1 + grid[0] * grid[1]))
        expected = case.cells(case.image(0, size=size))
        found = [None] * item.tokens
        for view in item.views:
            for r in range(SIDE):
                for c in range(SIDE):
                    cell = int(view.cells[r, c])
                    if cell >= 0:
                        assert torch.equal(features[cell], flat[view.patches[r, c]])
                        found[cell] = (view.crop, 0, r, c)
        assert found == expected


@given(sizes=SIZES)
def test_onevision_layouts_are_the_models(onevision, sizes):
    """With most=2 nearly every canvas is resampled; its cells are bilinear mixtures of the cropped canvas."""
    onevision.config.vision_aspect_ratio = "anyres_max_9"
    grids = [get_anyres_image_grid_shape(size, onevision.config.image_grid_pinpoints, 32) for size in sizes]
    views = [1 + rows * cols for rows, cols in grids]
    projected = torch.randn(sum(views), SIDE**2, 32, generator=torch.Generator().manual_seed(0))
    packed, _ = onevision.model.pack_image_features(
        projected.split(views),
        torch.tensor(sizes),
        image_newline=onevision.model.image_newline,
        vision_aspect_ratio="anyres_max_2",
    )
    flat = projected.flatten(0, 1)
    for item, features, grid in zip(layout(onevision, 2).items(packed, projected), packed, grids, strict=True):
        assert (item.tokens, item.crop_grid) == (len(features), grid)
        for view in item.views:
            shown = flat[view.patches]
            if view.crop == CANVAS:
                assert view.resampled and len(item.views) == 2
                shown = torch.nn.functional.interpolate(shown.permute(2, 0, 1)[None], view.cells.shape, mode="bilinear")
                shown = shown[0].permute(1, 2, 0)
            kept = view.cells >= 0
            torch.testing.assert_close(features[view.cells[kept]], shown[kept])


def test_a_canvas_of_nine_views_is_resampled_only_beyond_the_limit(onevision):
    packed, projected, _ = packed_by(onevision, [(96, 96), (90, 96)])
    items = layout(onevision, 9).items(packed, projected)
    assert [len(item.views) for item in items] == [10, 10]


def test_single_views(onevision):
    """Rows of several images (OneVision): one view each, one line end after it."""
    projected = torch.randn(2, SIDE**2, 32, generator=torch.Generator().manual_seed(1))
    packed = [torch.cat([view, onevision.model.image_newline[None]]) for view in projected]
    items = layout(onevision, 9).items(packed, projected)
    assert [(item.tokens, len(item.views), item.crop_grid) for item in items] == [(17, 1, (0, 0))] * 2
    assert items[1].views[0].patches.flatten().tolist() == list(range(16, 32))


def test_features_that_no_layout_explains(next_model):
    packed, projected, _ = packed_by(next_model, [(40, 64)])
    for broken in (packed[0] + 1, packed[0][:-1], packed[0].flip(0)):
        with pytest.raises(UnsupportedModelError, match="no layouts of 5 views explain the features of 1 images"):
            layout(next_model).items([broken], projected)


def test_images_so_thin_that_no_crop_is_left(next_model):
    packed, projected, _ = packed_by(next_model, [(4, 97)])
    assert len(packed[0]) == SIDE**2
    with pytest.raises(UnsupportedModelError, match="Of very long and thin images the model keeps no crop: pad them"):
        layout(next_model).items(packed, projected)


def test_images_that_look_alike_are_refused(next_model):
    """Two blank images whose views could be divided in two ways: an error, not a guess."""
    rows, cols = 2 * SIDE, 4
    newline = next_model.model.image_newline
    canvas = torch.zeros(rows, cols, 32)
    blank = torch.cat([torch.zeros(SIDE**2, 32), torch.cat([canvas, newline.expand(rows, 1, 32)], 1).flatten(0, 1)])
    projected = torch.zeros(8, SIDE**2, 32)
    with pytest.raises(UnsupportedModelError, match=r"2 layouts of 8 views .* pass them one by one"):
        AnyRes(SIDE, ((2, 1), (2, 2)), newline).items([blank, blank], projected)
