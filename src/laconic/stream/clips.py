"""Videos as methods see them: clips, whose frames are tables of rows of the stream, and how many tokens a clip may keep."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from laconic.families.vision import VisualSpan
from laconic.stream.contract import Stream, TokenMethod
from laconic.stream.equal_budget import tokens_after
from laconic.stream.shares import spread

Frames = Literal["video", "images"]
FRAMES: tuple[str, ...] = get_args(Frames)


@dataclass(frozen=True)
class Clip:
    """The frames of one video, in time order, before layer 0. A view of a still image is a clip of one frame.

    Attributes:
        spans: the frames, T of them.
        rows: rows of the stream, [T, n], in raster order.
        must: which of them are protected, bool [T, n].
    """

    spans: tuple[VisualSpan, ...]
    rows: Tensor
    must: Tensor


def clips(stream: Stream, row: int, frames: Frames = "video") -> list[Clip]:
    """The clips of a batch row, in prompt order.

    Args:
        frames: "video": what the model takes as a video is a clip. "images": so are, together, all images of the row, for
            models that are given a video's frames as images (InternVL); then images must have one view each.

    Raises:
        ValueError: with "images", an image has crops, or images differ in size.
    """
    spans = sorted(
        (s for s in stream.visual.spans if s.row == row and len(s.tokens)), key=lambda s: (s.image, s.frame, s.start)
    )
    lookup = torch.zeros(stream.ids.shape[1], dtype=torch.long, device=stream.place.device)
    lookup[stream.place[row]] = torch.arange(stream.place.shape[1], device=stream.place.device)
    must = torch.zeros_like(stream.shown[row]) if stream.protected is None else stream.protected[row]

    together: dict[tuple[str, int, int], list[VisualSpan]] = {}
    for span in spans:
        film = frames == "images" and span.modality == "image"
        together.setdefault(("images", 0, 0) if film else (span.modality, span.image, span.crop), []).append(span)
    found = []
    for members in together.values():
        if len({len(span.tokens) for span in members}) > 1 or (frames == "images" and any(s.crop for s in members)):
            raise ValueError(
                "frames='images' takes the images of a prompt as the frames of one video, but some of them differ in size "
                "or are split into crops; give frames of one size as single views."
            )
        rows = torch.stack([lookup[span.tokens.to(lookup.device)] for span in members])
        found.append(Clip(tuple(members), rows, must[rows]))
    return sorted(found, key=lambda clip: int(clip.rows.min()))


def clip_counts(
    method: TokenMethod, stream: Stream, row: int, found: Sequence[Clip], least: Sequence[int] | None = None
) -> list[int]:
    """How many tokens each clip of a batch row may keep by the method's budget: the same share of each, in sum exactly what
    the budget says.

    Args:
        least: what each keeps in any case; None: one token.

    Raises:
        BudgetError: the budget leaves less.
    """
    sizes = [clip.rows.numel() for clip in found]
    return spread(tokens_after(method, stream, row), sizes, sizes, least) if found else []


def limited(method: TokenMethod, stream: Stream, row: int, frames: Frames) -> Iterator[tuple[Clip, int | None]]:
    """Each clip of a batch row with the tokens that it may keep, see `clip_counts`; None where there is no budget.

    Args:
        frames: see `clips`.
    """
    found = clips(stream, row, frames)
    if method.budget_from_parameters:
        return zip(found, [None] * len(found), strict=True)
    return zip(found, clip_counts(method, stream, row, found), strict=True)


def ranked(stream: Stream, row: int, found: Sequence[Clip], scores: Sequence[Tensor]) -> Tensor:
    """Scores [T, n] of every clip as one per visual token of a batch row, [v], for the trace."""
    every = torch.zeros(stream.hidden.shape[1], device=stream.hidden.device)
    for clip, score in zip(found, scores, strict=True):
        every[clip.rows] = score.to(every)
    return every[stream.images(row)]
