"""Captions of scenes, for retrieval: what is shown, and where."""

from __future__ import annotations

from laconic.tasks.scenes.questions import QUESTIONS, pose
from laconic.tasks.scenes.scenes import Scene


def caption(scene: Scene) -> str:
    """Every shape with the quarter that its centre lies in, row by row: "top left red circle. bottom right blue star"."""
    middle = scene.size / 2
    where = sorted((s.y >= middle, s.x >= middle, s.name) for s in scene.shapes)
    return ". ".join(f"{'bottom' if y else 'top'} {'right' if x else 'left'} {name}" for y, x, name in where)


def caption_of(seed: int) -> str:
    """Of the scene that `laconic.fit.images.scenes` draws for a seed."""
    kinds = list(QUESTIONS)
    return caption(pose(kinds[seed % len(kinds)], seed)[0])
