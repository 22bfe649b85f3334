"""Captions of scenes: what is shown, and where."""

from __future__ import annotations

from laconic.tasks.scenes.questions import QUESTIONS, pose
from laconic.tasks.scenes.scenes import COLOURS, KINDS, Scene

CAPTION_WORDS = (*COLOURS, *KINDS, "top", "bottom", "left", "right")
"""All words of captions."""


def caption(scene: Scene) -> str:
    """Every shape with the quarter that its centre lies in, row by row: "red circle top left. blue star bottom right"."""
    middle = scene.size / 2
    where = sorted((s.y >= middle, s.x >= middle, s.name) for s in scene.shapes)
    return ". ".join(f"{name} {'bottom' if y else 'top'} {'right' if x else 'left'}" for y, x, name in where)


def caption_of(seed: int) -> str:
    """Of the scene that `laconic.fit.images.scenes` draws for a seed."""
    kinds = list(QUESTIONS)
    return caption(pose(kinds[seed % len(kinds)], seed)[0])
