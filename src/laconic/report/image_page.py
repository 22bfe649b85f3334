"""The page of `laconic inspect --image`, `--video` and `--audio`: images, frames and spectrograms as the model was given
them, and what became of their tokens in every layer at every budget that was tried."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from laconic.report.page import asset, facts, page, visible

Numbers = NDArray[np.int64]
PARTS = ("state", "scores", "patches", "merges", "legend", "timeline", "draw", "address", "tip", "events")
"""The files of `assets/image`, which share one scope: `state` declares what the others use, `events` draws for the first
time."""


@dataclass(frozen=True)
class View:
    """One view of an image: the thumbnail, a crop, a frame.

    Attributes:
        item: number of the image.
        name: label of the view.
        pixels: what the encoder was given, RGB uint8 [h, w, 3].
        cells: visual token of every grid cell, [rows, cols]; -1 where the model cut the cell away.
        spot: (row, column) of a crop in its image; None for other views and where it is unknown.
        time: from when to when it is to be seen or heard, in seconds; None where there is no time.
        width: how wide it is drawn, as a share of the widest of its kind.
    """

    item: int
    name: str
    pixels: NDArray[np.uint8]
    cells: Numbers
    spot: tuple[int, int] | None = None
    time: tuple[float, float] | None = None
    width: float = 1.0


@dataclass(frozen=True)
class ImageCut:
    """One shortening of the stream before a layer, in visual tokens.

    Attributes:
        scores: what the method ranked visual tokens by, float32 [n], nan for tokens without a score; None if it has none.
    """

    layer: int
    method: str
    before: int
    after: int
    merged: int
    scores: NDArray[np.float32] | None = None


@dataclass(frozen=True)
class Level:
    """What one run at one budget did to the n visual tokens; one position of the slider.

    Attributes:
        label: the budget in words, unique.
        asked, achieved: shares.
        layers: decoder layers, in order.
        share: share of each layer's KV heads that store a visual token, [layers, n].
        into: visual token whose state represents this one in each layer, [layers, n]: the token itself, the one it was
            merged into, or -1 where it was dropped.
        cuts: in the order in which they happened.
        answer: what the model answered.
    """

    label: str
    asked: float
    achieved: float
    layers: Sequence[int]
    share: NDArray[np.float32]
    into: Numbers
    cuts: Sequence[ImageCut] = ()
    answer: str = ""

    @property
    def kept(self) -> NDArray[np.bool_]:
        """Tokens that a layer's cache holds in some head, [layers, n]."""
        return self.share > 0

    @property
    def merged(self) -> NDArray[np.bool_]:
        """Tokens that were merged into another one, [layers, n]."""
        return (self.into >= 0) & (self.into != np.arange(self.into.shape[1]))

    def ranked(self, layer: int) -> ImageCut | None:
        """The latest cut with scores among those at or before `layer`."""
        return next((c for c in reversed(self.cuts) if c.layer <= layer and c.scores is not None), None)


@dataclass(frozen=True)
class Lens:
    """What a lens reads in each of n visual tokens before the first layer.

    Attributes:
        words, cosines: the nearest words of each token and their cosines, the nearest first.
        kinds: class of each token; empty if the lens knows no classes.
    """

    name: str
    words: Sequence[Sequence[str]]
    cosines: Sequence[Sequence[float]]
    kinds: Sequence[str] = ()


@dataclass(frozen=True)
class Gallery:
    """All views of one prompt and all budgets, the tightest first; `numbers`: position in the prompt of every token that is
    shown, [n]; `kind`: "visual" or "audio" tokens."""

    views: Sequence[View]
    numbers: Numbers
    levels: Sequence[Level]
    lens: Lens | None = None
    kind: str = "visual"

    @property
    def film(self) -> list[int]:
        """Numbers of the views that follow one another in time, if there are several and each is seen."""
        timed = [i for i, view in enumerate(self.views) if view.time is not None]
        return timed if self.kind == "visual" and len(timed) > 1 else []


@dataclass(frozen=True)
class About:
    """The head of the page: `facts` are (label, text) pairs, `warnings` are shown in red, `start` is the level that the page
    opens with."""

    facts: list[tuple[str, str]]
    warnings: list[str] = field(default_factory=list)
    start: int = 0


def image_page(title: str, about: About, gallery: Gallery) -> str:
    """The whole self-contained HTML document; `#keep=0.25&layer=2&show=rank` in its address selects what it shows."""
    narrow = ' class="narrow"' if len(gallery.views) == 1 and gallery.kind == "visual" else ""
    body = (
        f"{facts(about.facts, about.warnings)}\n{_controls(gallery)}\n{_timeline(gallery)}"
        f'<div id="main"{narrow}><div id="gallery">{_views(gallery)}<svg id="over" aria-hidden="true"></svg></div>\n'
        f"<div><h2>Budgets and answers</h2>\n{_levels(gallery)}</div></div>\n"
        '<h2>Cuts</h2>\n<div id="cuts" class="scroll"></div>\n'
        '<div id="tip" role="tooltip" hidden></div>'
    )
    script = f"const DATA = {_json(_data(gallery, about.start))};\n{asset(*(f'image/{name}.js' for name in PARTS))}"
    return page(title, body, style=asset("inspect.css", "image.css"), script=script)


def _controls(gallery: Gallery) -> str:
    levels, layers = gallery.levels, gallery.levels[0].layers
    ticks = "".join(f'<button type="button" data-level={i}>{escape(v.label)}</button>' for i, v in enumerate(levels))
    scored = any(c.scores is not None for level in levels for c in level.cuts)
    modes = [
        ("patches", f"kept {'patches' if gallery.kind == 'visual' else 'tokens'}", True),
        ("rank", "scores, by rank", scored),
    ]
    modes += [("view", "scores, by rank in each view", scored)] if len(gallery.views) > 1 else []
    modes.append(("value", "scores, by value", scored))
    alone = " hidden" if len(layers) == 1 else ""  # a speech model, all of whose layers look at the same
    modes.append(("budget", "smallest budget that keeps it", len(levels) > 1))
    if gallery.lens is not None:
        modes += [("words", f"nearest word ({gallery.lens.name})", True)]
        modes += [("classes", f"class ({gallery.lens.name})", bool(gallery.lens.kinds))]
    options = "".join(
        f'<option value="{value}"{"" if there else " disabled"}>{text}{"" if there else " (none here)"}</option>'
        for value, text, there in modes
    )
    return (
        f'<div id="controls"><div class="pick" style="--n:{len(levels)}">'
        f'<label for="keep">budget <output id="keepName"></output></label>{_bars("level", [v.label for v in levels])}'
        f'<input type="range" id="keep" min=0 max={len(levels) - 1} step=1><div class="ticks">{ticks}</div></div>'
        f'<div class="pick" style="--n:{len(layers)}"{alone}>'
        f'<label for="layer">layer <output id="layerName"></output></label>'
        f'{_bars("layer", layers)}<input type="range" id="layer" min=0 max={len(layers) - 1} step=1></div>'
        f'<div class="pick small"><label>show <select id="show">{options}</select></label>'
        '<label><input type="checkbox" id="lines"> merges as lines</label>'
        '<label><input type="checkbox" id="grid"> grid</label></div>'
        '<div id="count"></div><p id="legend" class="dim"></p></div>'
    )


def _bars(kind: str, names: Sequence[object]) -> str:
    bars = (
        f'<button type="button" data-{kind}={i} aria-label="{kind} {escape(str(name))}"><i></i></button>'
        for i, name in enumerate(names)
    )
    return f'<div class="bars">{"".join(bars)}</div>'


def _views(gallery: Gallery) -> str:
    """Figures: the whole views of an image side by side, its crops as they are placed in it."""
    parts = []
    few = " few" if len({v.item for v in gallery.views if v.spot is None}) <= 2 else ""
    few = " sound" if gallery.kind == "audio" else " strip" if gallery.film else few
    for item in sorted({v.item for v in gallery.views}):
        mine = [(i, v) for i, v in enumerate(gallery.views) if v.item == item]
        alone = "".join(_figure(i, v, f"width:{v.width:.1%}" if v.width < 1 else "") for i, v in mine if v.spot is None)
        crops = [(i, v) for i, v in mine if v.spot is not None]
        grid = ""
        if crops:
            cols = 1 + max(v.spot[1] for _, v in crops if v.spot)
            cells = (
                _figure(i, v, f"grid-row:{v.spot[0] + 1};grid-column:{v.spot[1] + 1}")
                for i, v in crops
                if v.spot is not None
            )
            grid = f'<div class="crops" style="--cols:{cols}">{"".join(cells)}</div>'
        parts.append(
            f'<section class="item{" wide" if len(mine) > 1 else ""}"><div class="alone{few}">{alone}</div>{grid}</section>'
        )
    return "".join(parts)


def _figure(number: int, view: View, style: str) -> str:
    height, width = view.pixels.shape[:2]
    placed = f' style="{style}"' if style else ""
    return (
        f'<figure{placed}><canvas data-view={number} style="aspect-ratio:{width}/{height}" role="img" '
        f'aria-label="{escape(view.name)}"></canvas><figcaption>{escape(_caption(view))} <span></span></figcaption></figure>'
    )


def _caption(view: View) -> str:
    """The name of a view, and its time: where a frame begins, and both ends of a line of sound."""
    if view.time is None:
        return view.name
    first, stop = view.time
    return " · ".join(filter(None, (view.name, f"{first:.2f} s" if len(view.cells) > 1 else f"{first:.2f} to {stop:.2f} s")))


def _timeline(gallery: Gallery) -> str:
    """A bar for every frame of a film, as wide as it lasts; the script makes them as high as what is kept of it."""
    shown = [(i, gallery.views[i].time or (0.0, 0.0)) for i in gallery.film]
    if not shown:
        return ""
    bars = "".join(
        f'<button type="button" data-view={i} style="flex:{max(stop - first, 1e-3):.3f} 1 0" '
        f'aria-label="{first:.2f} to {stop:.2f} s"><i></i></button>'
        for i, (first, stop) in shown
    )
    ends = "".join(f"<span>{time:.1f} s</span>" for time in (shown[0][1][0], shown[-1][1][1]))
    return f'<div id="time"><div class="film">{bars}</div><div class="dim ends">{ends}</div></div>\n'


def _levels(gallery: Gallery) -> str:
    full = next((v.answer for v in gallery.levels if v.asked == 1.0), None)
    rows = []
    for number, level in enumerate(gallery.levels):
        same = '<td class="dim">' if full is None or level.asked == 1.0 else _same(level.answer == full)
        mean = level.share.sum(1).mean()
        rows.append(
            f"<tr data-level={number}><td>{escape(level.label)}</td><td class=num>{level.asked:.1%}</td>"
            f"<td class=num>{level.achieved:.1%}</td><td class=num>{mean:,.1f}</td>"
            f'<td class="answer">{escape(visible(level.answer))}</td>{same}</td></tr>'
        )
    return (
        '<div class="scroll"><table id="levels"><thead><tr><th>budget</th><th class=num>asked</th>'
        '<th class=num>achieved</th><th class=num title="mean over layers and heads">'
        f"{gallery.kind} tokens</th>"
        "<th>answer</th><th></th></tr></thead>"
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _same(same: bool) -> str:
    return '<td class="good">same answer' if same else '<td class="bad">differs'


def _data(gallery: Gallery, start: int) -> dict[str, Any]:
    """What the script needs; layers of one run that hold the same tokens are written once."""
    return {
        "tokens": len(gallery.numbers),
        "kind": gallery.kind,
        "numbers": gallery.numbers.tolist(),
        "start": start,
        "layers": list(gallery.levels[0].layers),
        "views": [
            {"name": v.name, "item": v.item, "cells": v.cells.tolist(), "time": v.time, "image": _png(v.pixels)}
            for v in gallery.views
        ],
        "levels": [_level(level) for level in gallery.levels],
        "lens": None if gallery.lens is None else _lens(gallery.lens),
    }


def _lens(lens: Lens) -> dict[str, Any]:
    return {
        "name": lens.name,
        "words": [[visible(word).strip() or repr(word) for word in words] for words in lens.words],
        "cosines": [[round(x, 3) for x in cosines] for cosines in lens.cosines],
        "kinds": list(lens.kinds),
    }


def _level(level: Level) -> dict[str, Any]:
    states: dict[tuple[str, str], int] = {}
    at = []
    for share, into in zip(level.share, level.into, strict=True):
        state = _base64(np.round(share * 255).astype(np.uint8)), _base64(into.astype("<i4"))
        at.append(states.setdefault(state, len(states)))
    cuts = [
        {k: getattr(c, k) for k in ("layer", "method", "before", "after", "merged")}
        | {"scores": None if c.scores is None else _base64(c.scores.astype("<f4"))}
        for c in level.cuts
    ]
    return {
        "label": level.label,
        "states": [{"share": share, "into": into} for share, into in states],
        "at": at,
        "cuts": cuts,
    }


def _png(pixels: NDArray[np.uint8]) -> str:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode("ascii")


def _base64(array: NDArray[Any]) -> str:
    return base64.b64encode(np.ascontiguousarray(array).tobytes()).decode("ascii")


def _json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":")).replace("<", "\\u003c")
