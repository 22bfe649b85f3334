"""When what a page shows is to be seen or heard: frames of a video, and the lines of a spectrogram."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from torch import Tensor

from laconic.families.audio import AudioFamily
from laconic.families.vision import Visual, VisualSpan
from laconic.media import Frame
from laconic.prompts.clip import Clip
from laconic.report.image_page import Numbers, View
from laconic.report.spectrogram import spectrogram_image

LINE = 10.0
"""Seconds of sound in one line of a spectrogram."""
Edges = Sequence[float]
"""When each part of a whole begins, and when the last one ends, in seconds; empty where unknown."""


def edges_of(frames: Sequence[Frame], clip: Clip | None) -> list[Edges]:
    """The edges of everything that the prompt shows, in its order: still images have none, a video that is one to the model
    has those of its frames, and frames that are images to it have their own.
    """
    stills = [frame for frame in frames if frame.of == 1]
    if clip is not None:
        return [*([()] * (len(frames) - len(clip.frames))), [*clip.times, clip.length]]
    shown = [frame for frame in frames if frame.of > 1]
    times = [frame.time for frame in shown]
    if not shown or None in times or shown[0].length is None:
        return [()] * len(frames)
    ends = [*[time for time in times if time is not None], shown[0].length]
    return [*([()] * len(stills)), *pairwise(ends)]


def frame_time(edges: Edges, frame: int, views: int) -> tuple[float, float] | None:
    """From when to when one of ``views`` views is on screen, each of which may stand for several frames."""
    if len(edges) < 2:
        return None
    each = -(-(len(edges) - 1) // views)
    first, stop = (min(i * each, len(edges) - 1) for i in (frame, frame + 1))
    return edges[first], edges[stop]


def sound_views(visual: Visual, span: VisualSpan, features: Tensor, item: int, name: str, numbers: Numbers) -> list[View]:
    """A sound of a prompt as lines of its spectrogram, one cell per audio token.

    Args:
        features: what the encoder was given of it, [mels, columns].
        numbers: place in the prompt of every audio token.
    """
    family = visual.family
    assert isinstance(family, AudioFamily)
    cells = np.searchsorted(numbers, span.tokens.cpu().numpy())
    return sound_lines(features, cells, family.frames(visual.model), family.seconds(visual.model), item, name)


def sound_lines(features: Tensor, cells: Numbers, columns: int, seconds: float, item: int = 0, name: str = "") -> list[View]:
    """A sound as lines of its spectrogram.

    Args:
        features: what the encoder was given of it, [mels, columns].
        cells: the audio token of every stretch of it, [n]; `columns`, `seconds`: of a stretch.
    """
    n = len(cells)
    heard = features[:, : n * columns].numpy()
    line = max(1, round(LINE / seconds))
    found = []
    for first in range(0, n, line):
        stop = min(first + line, n)
        drawn = spectrogram_image(heard[:, first * columns : stop * columns], float(heard.min()), float(heard.max()))
        time = (first * seconds, stop * seconds)
        found.append(View(item, name, drawn, cells[None, first:stop], time=time, width=(stop - first) / min(line, n)))
    return found
