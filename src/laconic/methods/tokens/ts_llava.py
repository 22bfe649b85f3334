"""TS-LLaVA: a video as tokens sampled evenly from all frames, and one thumbnail grid of a few of them (arXiv 2411.11066)."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from laconic import checks
from laconic.errors import BudgetError
from laconic.families.vision.spans import VisualSpan
from laconic.media import Frame
from laconic.method import register
from laconic.stream.assemble import assemble
from laconic.stream.contract import POLICIES, Cut, Policy, Stream, TokenMethod

FRAMES, THUMBNAIL, SAMPLES = 50, 6, 2880
SIDE = 336
"""Pixels along each side of what the published model's encoder sees."""


def frame_numbers(total: int, frames: int = FRAMES) -> list[int]:
    """The frames to decode of `total`: the middle of each of `frames` equal segments, or all of a short clip (the published
    rule would take some frames of a short clip twice)."""
    if total <= frames:
        return list(range(total))
    segment = (total - 1) / frames
    return [(round(segment * i) + round(segment * (i + 1))) // 2 for i in range(frames)]


def thumbnail_numbers(frames: int, tiles: int = THUMBNAIL) -> list[int]:
    """Which of `frames` frames are tiles of the thumbnail: evenly spaced, ends included; all when there are fewer."""
    return evenly(frames, min(frames, tiles)).tolist()


def evenly(total: int, count: int) -> Tensor:
    """`count` of the numbers 0 .. total - 1, evenly spaced, ends included: ``round(linspace(0, total - 1, count))``. Halves
    round to the even number, as in numpy and torch. A count of 1 gives the first."""
    return torch.linspace(0, total - 1, count, dtype=torch.float64).round().long()


def grid_of(tiles: int) -> tuple[int, int]:
    """(rows, columns): the two factors nearest to each other, the larger one first; 4 -> 2 x 2, 6 -> 3 x 2, 5 -> 5 x 1."""
    columns = max(c for c in range(1, math.isqrt(tiles) + 1) if tiles % c == 0)
    return tiles // columns, columns


def thumbnail(frames: Tensor, tiles: int = THUMBNAIL, *, shuffle: int | None = None) -> Tensor:
    """One image of `tiles` evenly spaced frames, in rows, in time order.

    Args:
        frames: all of one size, [N, 3, S, S], before or after normalisation.
        tiles: fewer if there are fewer frames.
        shuffle: seed for an ablation in which tiles are in random order.

    Returns:
        [3, S, S]. Where S is not divisible, the remaining pixels on the right and at the bottom are zero.
    """
    numbers = thumbnail_numbers(len(frames), tiles)
    if shuffle is not None:
        random.Random(shuffle).shuffle(numbers)
    (rows, columns), (height, width) = grid_of(len(numbers)), frames.shape[-2:]
    tile = height // rows, width // columns
    chosen = frames[numbers].float()
    if tile[0] < height or tile[1] < width:
        chosen = F.interpolate(chosen, tile, mode="area")
    image = chosen.new_zeros(frames.shape[1], height, width)
    for place, small in enumerate(chosen):
        top, left = place // columns * tile[0], place % columns * tile[1]
        image[:, top : top + tile[0], left : left + tile[1]] = small
    return image.to(frames.dtype) if frames.is_floating_point() else image.round().clamp(0, 255).to(frames.dtype)


def images_of(
    frames: Sequence[Image.Image], size: int, tiles: int = THUMBNAIL, *, most: int = FRAMES, shuffle: int | None = None
) -> list[Image.Image]:
    """The images of one prompt, for a processor: up to `most` frames, then their thumbnail.

    Args:
        frames: of the whole video. `size`: pixels along each side that the model's encoder sees; frames are resized to it
            directly, without cropping or padding.
    """
    small = [
        frames[n].convert("RGB").resize((size, size), Image.Resampling.BICUBIC) for n in frame_numbers(len(frames), most)
    ]
    grid = thumbnail(torch.stack([_tensor(image) for image in small]), tiles, shuffle=shuffle)
    return [*small, Image.frombytes("RGB", (size, size), grid.permute(1, 2, 0).contiguous().numpy().tobytes())]


def _tensor(image: Image.Image) -> Tensor:
    """Bytes [3, S, S]."""
    data = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)
    return data.view(image.height, image.width, 3).permute(2, 0, 1)


@register(
    "ts_llava",
    site="tokens",
    modality="video",
    mechanism="sampling",
    principle="transformation",
    source="arXiv 2411.11066",
    query_aware=False,
    inferred="clips with fewer tokens or frames than asked for give what they have (the release fails)",
)
@dataclass(kw_only=True)
class TSLlava(TokenMethod):
    """Keep tokens sampled evenly from the sequence of all frames' tokens, and all tokens of the thumbnail.

    The images of a prompt are the frames in time order and, last, the thumbnail (`images_of` makes them). Frames of a video,
    where a model takes videos, count as frames too; their thumbnail is then the prompt's image.

    Args:
        samples: tokens sampled from the frames of one sequence, where no budget is given (2880). A budget covers frames and
            thumbnail together.
        thumbnails: how many of the images are thumbnails (1); they keep all their tokens.
        first: whether thumbnails are the first images, not the last.
        positions: ``"renumber"``: the model reads a prompt without gaps, as published; or ``"gather"``.

    Raises:
        BudgetError: the thumbnails leave no token for the frames.
    """

    samples: int = SAMPLES
    thumbnails: int = 1
    first: bool = False
    positions: Policy = "renumber"

    default_keep: ClassVar[float | None] = None

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("samples", "thumbnails"):
            checks.whole(self, name)
        if not self.samples and not self.thumbnails:
            raise ValueError("ts_llava: samples=0 and thumbnails=0 leave nothing of the video.")
        checks.one_of(self, "positions", *POLICIES)

    def cut(self, stream: Stream) -> Cut | None:
        kept = []
        for row in range(len(stream.hidden)):
            frames, grids = self._split(stream, row)
            at = stream.images(row)
            wanted = frames[evenly(len(frames), self._count(stream, row, len(frames), len(grids)))]
            kept.append(at[torch.isin(stream.place[row, at], torch.cat([wanted, grids]))])
        return assemble(stream, kept, positions=self.positions, separators=False)

    def arrange(self, stills: Sequence[Frame], frames: Sequence[Frame], side: int | None) -> list[Frame]:
        """At most 50 frames and their thumbnail, as `images_of` makes them; without thumbnails the frames as they are.

        Raises:
            ValueError: more than one thumbnail is asked for, and what each is to show is not said.
        """
        if self.thumbnails == 0:
            return [*stills, *frames]
        if self.thumbnails > 1:
            raise ValueError(
                f"ts_llava: thumbnails={self.thumbnails}: one is made of a video; set thumbnails=1, or make the images with "
                "`images_of` and give them as images."
            )
        chosen = [frames[number] for number in frame_numbers(len(frames))]
        *small, grid = images_of([frame.image for frame in chosen], side or SIDE)
        shown = [replace(frame, image=image) for frame, image in zip(chosen, small, strict=True)]
        thumb = Frame(grid, 0, 1, f"{chosen[0].source}, thumbnail")
        return [thumb, *stills, *shown] if self.first else [*stills, *shown, thumb]

    def _split(self, stream: Stream, row: int) -> tuple[Tensor, Tensor]:
        """Token numbers of the frames, in time order, and of the thumbnails."""
        spans = [span for span in stream.visual.spans if span.row == row]
        images = list(dict.fromkeys(span.image for span in spans if span.modality == "image"))
        needs_frame = self.samples > 0 and all(span.modality == "image" for span in spans)
        if spans and len(images) < self.thumbnails + needs_frame:
            raise ValueError(
                f"ts_llava: {len(images)} images in sequence {row}, thumbnails={self.thumbnails} of them; give the frames "
                "and after them the thumbnail (`images_of` makes both), or set thumbnails=0."
            )
        chosen = set(images[: self.thumbnails] if self.first else images[len(images) - self.thumbnails :])
        grid = [span.modality == "image" and span.image in chosen for span in spans]
        frames, grids = (
            [s for s, is_grid in zip(spans, grid, strict=True) if is_grid == wanted] for wanted in (False, True)
        )
        return _tokens(frames, stream), _tokens(grids, stream)

    def _count(self, stream: Stream, row: int, frames: int, grids: int) -> int:
        """Tokens to sample from a sequence's frames."""
        if self.budget_from_parameters:
            return min(self.samples, frames)
        mean = self.allowance(frames + grids, len(stream.texts(row)), stream.entry_bytes)
        count = min(frames, round(mean) - grids)
        if frames and count < 1:
            raise BudgetError(
                f"ts_llava: the budget ({self.budget}) leaves {mean:.1f} of {frames + grids} visual tokens and the "
                f"thumbnails have {grids}; raise it, or use samples=0 without a budget for the thumbnails alone."
            )
        return count


def _tokens(spans: Sequence[VisualSpan], stream: Stream) -> Tensor:
    device = stream.hidden.device
    return torch.cat([torch.zeros(0, dtype=torch.long), *(span.tokens for span in spans)]).to(device)
