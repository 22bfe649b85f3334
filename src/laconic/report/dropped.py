"""A text beside what was kept of it, for the page of `laconic inspect`."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from itertools import groupby

from laconic.report.page import visible


def dropped(pieces: Sequence[str], kept: Sequence[int], short: str, heading: str) -> str:
    """A section with two columns: the whole text, its dropped pieces struck out, and the text that was read.

    Args:
        pieces: of the text, in order; `kept`: numbers of those that stay. `short`: what was read. `heading`: plain text.
    """
    stay = set(kept)
    runs = groupby(range(len(pieces)), key=stay.__contains__)
    original = "".join(_marked("".join(pieces[i] for i in numbers), keep) for keep, numbers in runs)
    return (
        f"<h2>{escape(heading)}</h2>\n"
        '<div class="sides"><div class="card"><h3>before</h3><div class="text">'
        f"{original}</div></div>"
        f'<div class="card"><h3>after</h3><div class="text">{escape(visible(short))}</div></div></div>\n'
    )


def _marked(text: str, keep: bool) -> str:
    shown = escape(visible(text))
    return shown if keep else f"<del>{shown}</del>"
