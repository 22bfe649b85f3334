"""The page of `laconic inspect`: a text, coloured by which layers and heads of the cache kept its tokens, at each budget."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any

import numpy as np

from laconic.report.page import asset, facts, page, table, visible
from laconic.report.pieces import TextPiece


@dataclass(frozen=True)
class Kept:
    """What was kept of one sequence by one run at one budget; one position of the slider.

    Attributes:
        tokens: length of the sequence.
        indices: decoder layer -> KV head -> kept token indices.
        stream: tokens that went on to the later layers; None when all did.
        stream_from: the first layer that ran on those alone.
        label: the budget in words, unique. `asked`, `achieved`: shares. `answer`: what the model answered.
    """

    tokens: int
    indices: dict[int, list[Sequence[int]]]
    stream: Sequence[int] | None = None
    stream_from: int | None = None
    label: str = ""
    asked: float = 1.0
    achieved: float = 1.0
    answer: str = ""

    @property
    def layers(self) -> list[int]:
        return list(self.indices)

    def mask(self, kept: Sequence[int]) -> np.ndarray:
        """Kept indices as bool [tokens]; indices beyond the sequence are left out."""
        mask = np.zeros(self.tokens, dtype=bool)
        mask[[i for i in kept if i < self.tokens]] = True
        return mask

    def share(self) -> np.ndarray:
        """Share of all heads of all layers that kept each token, [tokens]."""
        masks = [self.mask(kept) for heads in self.indices.values() for kept in heads]
        return np.mean(masks, axis=0) if masks else np.zeros(self.tokens)


@dataclass(frozen=True)
class Subject:
    """What the page is about, in words.

    Attributes:
        facts: (label, text) pairs at the top of the page.
        question_at: token index where the question begins.
        warnings: shown in red.
    """

    facts: list[tuple[str, str]]
    question_at: int
    warnings: list[str] = field(default_factory=list)


def kept_page(
    title: str,
    subject: Subject,
    levels: Sequence[Kept],
    pieces: Sequence[TextPiece],
    ids: Sequence[int],
    start: int = 0,
    before: str = "",
) -> str:
    """The whole self-contained HTML document.

    Args:
        levels: of the same text at every budget that was tried, the tightest first; `start`: the one it opens with.
        before: markup that comes before the text, see `report.dropped`.
    """
    several = len(levels) > 1
    counts = "".join(
        f'<div class="counts"{"" if i == start else " hidden"}>{_counts(kept)}</div>' for i, kept in enumerate(levels)
    )
    body = (
        f"{facts(subject.facts, subject.warnings)}\n{_controls(levels)}\n{before}"
        '<h2>Layers and tokens</h2>\n<p class="dim">One row per layer, one column per token from left to right; '
        "the stronger the colour, the more heads kept it. Click to go to a token.</p>\n"
        '<div id="map"><div id="labels"></div><canvas id="heat" role="img" aria-label="layers by tokens"></canvas></div>\n'
        f'<h2>The text</h2>\n<div id="text" class="card">{_text(subject, levels[start], pieces)}</div>\n'
        f"{f'<h2>Budgets and answers</h2>{_budgets(levels)}' if several else ''}"
        f"<h2>Counts</h2>\n{counts}\n"
        '<div id="tip" role="tooltip" hidden></div>'
    )
    script = f"const DATA = {_data(levels, pieces, ids, start)};\n{asset('kept.js')}"
    return page(title, body, style=asset("inspect.css", "kept.css", "dropped.css"), script=script)


def _controls(levels: Sequence[Kept]) -> str:
    layers = "".join(f'<option value="{layer}">layer {layer}</option>' for layer in levels[0].layers)
    travelled = any(kept.stream is not None for kept in levels)
    stream = '<option value="stream">the stream: what travelled on</option>' if travelled else ""
    return (
        f'<div id="controls">{_slider(levels) if len(levels) > 1 else ""}'
        '<label>show <select id="layer"><option value="all">all layers</option>'
        f'{layers}{stream}</select></label> <label><select id="head" aria-label="head"></select></label> '
        '<label><input type="checkbox" id="only"> hide what was removed</label> '
        '<span class="legend"><span>removed</span><i></i><span id="most">kept by all</span></span>'
        '<span id="count" class="dim"></span></div>'
    )


def _slider(levels: Sequence[Kept]) -> str:
    ticks = "".join(f'<button type="button" data-level={i}>{escape(kept.label)}</button>' for i, kept in enumerate(levels))
    return (
        f'<div class="pick" style="--n:{len(levels)}"><label for="keep">budget <output id="keepName"></output></label>'
        f'<input type="range" id="keep" min=0 max={len(levels) - 1} step=1><div class="ticks">{ticks}</div></div>'
        '<label><input type="checkbox" id="least"> colour by the smallest budget that keeps it</label> '
    )


def _text(subject: Subject, kept: Kept, pieces: Sequence[TextPiece]) -> str:
    share = kept.share()
    spans, marked = [], False
    for number, piece in enumerate(pieces):
        if not marked and 0 < subject.question_at <= piece.start:
            spans.append('<b class="mark">question</b>')
            marked = True
        value = float(share[piece.start : piece.stop].mean())
        text = escape(visible(piece.text)).replace("\n", "<u>\u21b5</u>\n")
        gone = "" if value else " class=g"
        spans.append(f'<s data-i={number}{gone} style="--s:{value:.3g}">{text}</s>')
    return "".join(spans)


def _budgets(levels: Sequence[Kept]) -> str:
    full = next((kept.answer for kept in levels if kept.asked == 1.0), None)
    rows: list[list[object]] = []
    for kept in levels:
        same = "" if full is None or kept.asked == 1.0 else "same answer" if kept.answer == full else "differs"
        rows.append([kept.label, f"{kept.asked:.1%}", f"{kept.achieved:.1%}", visible(kept.answer), same])
    return table(["budget", "asked", "achieved", "answer", ""], rows)


def _counts(kept: Kept) -> str:
    rows: list[list[object]] = []
    for layer, heads in kept.indices.items():
        counts = [len(h) for h in heads]
        shown = ", ".join(map(str, counts)) if len(counts) <= 8 else f"{min(counts)} to {max(counts)}"
        mean = sum(counts) / len(counts)
        rows.append([layer, len(counts), round(mean, 1), f"{mean / kept.tokens:.1%}", shown])
    return table(["layer", "KV heads", "mean kept", "share", "kept by each head"], rows)


def _data(levels: Sequence[Kept], pieces: Sequence[TextPiece], ids: Sequence[int], start: int) -> str:
    """Bit sets, one per head, little-endian, base64: 4,000 tokens and 256 heads are 170 KB for each budget."""
    data = {
        "tokens": levels[0].tokens,
        "levels": [_level(kept) for kept in levels],
        "start": start,
        "starts": [p.start for p in pieces],
        "ids": list(ids),
    }
    return json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")


def _level(kept: Kept) -> dict[str, Any]:
    def bits(indices: Sequence[int]) -> str:
        return base64.b64encode(np.packbits(kept.mask(indices), bitorder="little").tobytes()).decode("ascii")

    return {
        "label": kept.label,
        "layers": [{"layer": layer, "heads": [bits(h) for h in heads]} for layer, heads in kept.indices.items()],
        "stream": None if kept.stream is None else bits(kept.stream),
        "streamFrom": kept.stream_from,
    }
