"""The images of the page as one PNG: a row per budget, a column per range of layers in which nothing changes."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from laconic.report.image_page import Gallery, Level, Numbers, View
from laconic.report.ramp import RAMP

PANEL, GAP, MARGIN, TITLE, SIDE = 280, 6, 16, 56, 150
MOST = 6
"""Most columns; of more ranges of layers, this many are shown, the first and the last among them."""
INK, DIM, EDGE, PAPER = (28, 30, 33), (106, 112, 120), (11, 99, 206), (253, 253, 252)
VEIL, TINT = 0.86, 0.5


def image_png(gallery: Gallery, title: str = "") -> Image.Image:
    """One sheet. Kept patches are clear and outlined, dropped ones pale, merged ones tinted in the colour of the patch that
    absorbed them. A last column shows the latest scores by rank as a heat map, if the method gives any."""
    stages = _stages(gallery.levels)
    heats = any(c.scores is not None for level in gallery.levels for c in level.cuts)
    panels = [[_panel(gallery, level, layer, None) for layer in stages] for level in gallery.levels]
    if heats:
        for row, level in zip(panels, gallery.levels, strict=True):
            if level.ranked(level.layers[-1]) is not None:
                row.append(_panel(gallery, level, len(level.layers) - 1, _ranks(level)))
    width, height = panels[0][0].size
    columns = len(stages) + heats
    sheet = Image.new(
        "RGB",
        (2 * MARGIN + SIDE + columns * (width + 2 * GAP), 2 * MARGIN + TITLE + len(panels) * (height + 2 * GAP)),
        PAPER,
    )
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(15)
    pen.text((MARGIN, MARGIN), title, INK, ImageFont.load_default(18))
    names = [_stretch(gallery.levels[0].layers, stages, i, gallery.levels) for i in range(len(stages))]
    for column, name in enumerate([*names, *(["latest scores, by rank"] if heats else [])]):
        pen.text((MARGIN + SIDE + column * (width + 2 * GAP), MARGIN + 32), name, INK, font)
    for line, (level, row) in enumerate(zip(gallery.levels, panels, strict=True)):
        top = MARGIN + TITLE + line * (height + 2 * GAP)
        _name(pen, level, gallery, top)
        for column, panel in enumerate(row):
            sheet.paste(panel, (MARGIN + SIDE + column * (width + 2 * GAP), top))
    return sheet


def _name(pen: ImageDraw.ImageDraw, level: Level, gallery: Gallery, top: int) -> None:
    font, small = ImageFont.load_default(17), ImageFont.load_default(13)
    pen.text((MARGIN, top), level.label, INK, font)
    lines = [f"{level.share.sum(1).mean():,.1f} of {len(gallery.numbers):,}", "visual tokens", ""]
    words = " ".join(level.answer.split())
    lines += [words[i : i + 19] for i in range(0, min(len(words), 19 * 6), 19)]
    pen.multiline_text((MARGIN, top + 26), "\n".join(lines), DIM, small, spacing=3)


def _stages(levels: Sequence[Level]) -> list[int]:
    """Indices of layers at which something changes for some budget, at most `MOST` of them."""
    depth = len(levels[0].layers)
    first = [
        i
        for i in range(depth)
        if i == 0 or any((v.share[i] != v.share[i - 1]).any() or (v.into[i] != v.into[i - 1]).any() for v in levels)
    ]
    chosen = np.unique(np.linspace(0, len(first) - 1, min(MOST, len(first))).round().astype(int))
    return [first[i] for i in chosen]


def _stretch(layers: Sequence[int], stages: list[int], number: int, levels: Sequence[Level]) -> str:
    """The name of the layers that look like this one."""
    start = stop = stages[number]
    while stop + 1 < len(layers) and all(
        (v.share[stop + 1] == v.share[start]).all() and (v.into[stop + 1] == v.into[start]).all() for v in levels
    ):
        stop += 1
    return f"layer {layers[start]}" if stop == start else f"layers {layers[start]} to {layers[stop]}"


def _ranks(level: Level) -> NDArray[np.float64]:
    """The latest scores as ranks from 0 to 1, nan where there are none, [n]."""
    cut = level.ranked(level.layers[-1])
    ranks = np.full(level.share.shape[1], np.nan)
    if cut is not None and cut.scores is not None:
        known = np.flatnonzero(~np.isnan(cut.scores))
        ranks[known[np.argsort(cut.scores[known], kind="stable")]] = np.linspace(0, 1, len(known)) if len(known) > 1 else 1
    return ranks


def _panel(gallery: Gallery, level: Level, layer: int, heat: NDArray[np.float64] | None) -> Image.Image:
    """All views side by side: whole ones, then the crops as they are placed in the image; one image below the other."""
    lines: list[Image.Image] = []
    for item in sorted({v.item for v in gallery.views}):
        mine = [v for v in gallery.views if v.item == item]
        blocks = [_drawn(v, level, layer, heat, PANEL) for v in mine if v.spot is None]
        crops = [v for v in mine if v.spot is not None]
        if crops:
            rows, cols = (1 + max(v.spot[k] for v in crops if v.spot) for k in (0, 1))
            tiles = {v.spot: _drawn(v, level, layer, heat, (PANEL - 2 * (cols - 1)) // cols) for v in crops}
            wide, high = tiles[crops[0].spot].size
            grid = Image.new("RGB", (cols * (wide + 2) - 2, rows * (high + 2) - 2), PAPER)
            for spot, tile in tiles.items():
                assert spot is not None
                grid.paste(tile, (spot[1] * (wide + 2), spot[0] * (high + 2)))
            blocks.append(grid)
        lines.append(_join(blocks, across=True))
    return _join(lines, across=False)


def _join(parts: list[Image.Image], across: bool) -> Image.Image:
    sizes = [p.size for p in parts]
    along, over = (0, 1) if across else (1, 0)
    length, other = sum(s[along] for s in sizes) + GAP * (len(parts) - 1), max(s[over] for s in sizes)
    whole, at = Image.new("RGB", (length, other) if across else (other, length), PAPER), 0
    for part, size in zip(parts, sizes, strict=True):
        whole.paste(part, (at, 0) if across else (0, at))
        at += size[along] + GAP
    return whole


def _drawn(view: View, level: Level, layer: int, heat: NDArray[np.float64] | None, width: int) -> Image.Image:
    """One view, `width` pixels wide."""
    height = round(width * view.pixels.shape[0] / view.pixels.shape[1])
    resized = Image.fromarray(view.pixels).resize((width, height), Image.Resampling.BICUBIC)
    image = np.asarray(resized.convert("L").convert("RGB") if heat is not None else resized).astype(np.float64)
    rows, cols = view.cells.shape
    ys, xs = (np.linspace(0, size, count + 1).round().astype(int) for size, count in ((height, rows), (width, cols)))
    kept = np.zeros((rows + 2, cols + 2), bool)
    holders = set(level.into[layer][level.merged[layer]].tolist())
    boxes: list[tuple[tuple[int, int, int, int], int]] = []
    for r in range(rows):
        for c in range(cols):
            token = int(view.cells[r, c])
            cell = image[ys[r] : ys[r + 1], xs[c] : xs[c + 1]]
            kept[r + 1, c + 1] = token >= 0 and level.kept[layer, token]
            if token >= 0 and heat is not None:
                _blend(cell, _ramp(heat[token]) if heat[token] == heat[token] else PAPER, 0.78)
            elif token >= 0 and level.merged[layer, token]:
                _blend(cell, PAPER, 0.35)
                _blend(cell, _hue(int(level.into[layer, token])), TINT)
            else:
                _blend(cell, PAPER, VEIL * (1 - float(level.share[layer, token])) if token >= 0 else 0.94)
            if token in holders and heat is None:
                boxes.append(((xs[c] + 1, ys[r] + 1, xs[c + 1] - 2, ys[r + 1] - 2), token))
    out = Image.fromarray(image.clip(0, 255).astype(np.uint8))
    pen = ImageDraw.Draw(out)
    _outline(pen, kept, xs, ys)
    for box, token in boxes:
        pen.rectangle(box, outline=_hue(token), width=2)
    return out


def _outline(pen: ImageDraw.ImageDraw, kept: NDArray[np.bool_], xs: Numbers, ys: Numbers) -> None:
    """A line between kept patches and others; `kept` has a border of False around the grid."""
    if kept[1:-1, 1:-1].all():
        return
    for r, c in np.argwhere(kept) - 1:
        x, y, right, below = int(xs[c]), int(ys[r]), int(xs[c + 1]) - 1, int(ys[r + 1]) - 1
        for (dr, dc), line in {
            (-1, 0): (x, y, right, y),
            (1, 0): (x, below, right, below),
            (0, -1): (x, y, x, below),
            (0, 1): (right, y, right, below),
        }.items():
            if not kept[r + 1 + dr, c + 1 + dc]:
                pen.line(line, fill=EDGE, width=2)


def _blend(cell: NDArray[np.float64], colour: Sequence[float], amount: float) -> None:
    cell += amount * (np.asarray(colour, dtype=np.float64) - cell)


def _ramp(x: float) -> tuple[float, ...]:
    return tuple(float(np.interp(x * (len(RAMP) - 1), np.arange(len(RAMP)), RAMP[:, k])) for k in range(3))


def _hue(token: int) -> tuple[int, int, int]:
    """The colour of a group of merged patches, as on the page."""
    r, g, b = colorsys.hls_to_rgb(round(token * 137.508 % 360) / 360, 0.5, 0.85)
    return round(r * 255), round(g * 255), round(b * 255)
