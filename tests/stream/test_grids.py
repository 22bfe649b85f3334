"""Grids in the stream: smaller shapes, windows, and views that the model cropped."""

from itertools import product
from types import SimpleNamespace

import pytest
import torch
from helpers.vision_tools import inputs
from helpers.vision_zoo import CASES
from hypothesis import given as draws
from hypothesis import strategies as st

from laconic import BudgetError, compress
from laconic.errors import SessionError
from laconic.families.vision import VisualSpan
from laconic.methods.tokens.downsample import Downsample
from laconic.methods.tokens.pool import Pool
from laconic.stream.grids import STRETCH, averaged, grid_rows, middles, smaller, windows


@draws(st.integers(1, 30), st.integers(1, 30))
def test_windows_cover_all_and_their_middles_differ(n, m):
    m = min(n, m)
    where, window = middles(n, m).tolist(), windows(n, m).tolist()
    assert len(set(where)) == m and sorted(set(window)) == list(range(m))
    for i, middle in enumerate(where):
        start, stop = i * n // m, -(-(i + 1) * n // m)
        assert start <= middle < stop
    for j, i in enumerate(window):
        assert i * n // m <= j < -(-(i + 1) * n // m) and (i == 0 or j >= -(-i * n // m))


@draws(st.integers(1, 24), st.integers(1, 24), st.integers(1, 600))
def test_smaller_grids(rows, cols, count):
    """By trying all shapes."""
    r, c = smaller(rows, cols, count)
    assert 1 <= r <= rows and 1 <= c <= cols and r * c <= max(1, count)
    stretch = max(rows * c / (cols * r), cols * r / (rows * c))
    for a, b in product(range(1, rows + 1), range(1, cols + 1)):
        other = max(rows * b / (cols * a), cols * a / (rows * b))
        if a * b <= count and other <= STRETCH:
            assert a * b <= r * c and stretch <= STRETCH + 1e-9


def test_familiar_shapes():
    assert [smaller(24, 24, n) for n in (576, 192, 144, 64)] == [(24, 24), (12, 16), (12, 12), (8, 8)]
    assert smaller(12, 12, 108) == (9, 12) and smaller(12, 12, 14) == (3, 4) and smaller(1, 9, 4) == (1, 4)


@pytest.mark.parametrize(("rows", "cols"), [(4, 3), (2, 2), (5, 6), (1, 1)])
def test_averages_by_loops(rows, cols):
    torch.manual_seed(0)
    x, expected = torch.randn(5, 6, 3), []
    for i, j in product(range(rows), range(cols)):
        r, c = slice(i * 5 // rows, -(-(i + 1) * 5 // rows)), slice(j * 6 // cols, -(-(j + 1) * 6 // cols))
        expected.append(x[r, c].reshape(-1, 3).mean(0))
    torch.testing.assert_close(averaged(x, rows, cols), torch.stack(expected))


@pytest.mark.parametrize("method", [Downsample(keep=0.3), Pool(), Pool(mode="raster"), Pool(layer=2)], ids=str)
@pytest.mark.parametrize("name", CASES)
def test_every_family(name, method):
    """Views of one image, cropped borders, line ends, M-RoPE, two images: every view keeps its own grid."""
    case = CASES[name]
    model = case.build()
    if name == "llava-siglip" and getattr(method, "mode", "grid") == "grid":
        pytest.skip("refused: this model gives the first patch of a view no token (tests/families/vision/test_llava.py)")
    shape = {"size": (40, 64)} if name in ("llava_next", "llava_onevision") else {}
    given = case.inputs([[case.image(0, **shape), case.image(1, **shape)], [case.image(2, **shape)]])
    given["attention_mask"] = (given["input_ids"] != 0).long()
    with compress(model, method) as session, torch.no_grad():
        out = model(**given)
        step = model.generate(**given, max_new_tokens=2, do_sample=False, suppress_tokens=[90, 91])
    assert out.logits.isfinite().all() and step.shape[1] == given["input_ids"].shape[1] + 2
    assert session.stats.visual[2] < 0.55 * session.stats.visual_in


def test_gaps_are_an_error():
    """Another method dropped token 2, and the model cropped line 1."""
    cells = torch.tensor([[0, 1], [-1, -1], [2, 3]])
    span = VisualSpan(row=0, modality="image", image=0, crop=0, frame=0, cells=cells, patches=cells)
    place = torch.tensor([[0, 1, 2, 3, 4]])
    stream = SimpleNamespace(place=place, ids=place, layer=3, images=lambda row: torch.arange(4))
    assert grid_rows(stream, span).tolist() == [[0, 1], [2, 3]]
    stream.place, stream.images = torch.tensor([[0, 1, 3, 4]]), lambda row: torch.arange(3)
    with pytest.raises(SessionError, match="2 x 2 visual tokens has gaps before layer 3"):
        grid_rows(stream, span)


@pytest.mark.parametrize("method", [Pool(), Downsample()], ids=str)
def test_averages_cannot_spare_protected_tokens(vlm, method):
    with pytest.raises(BudgetError, match="cannot spare"), compress(vlm, method, protect=(10, 12)), torch.no_grad():
        vlm(**inputs([(3, 9)]))
