"""A film without sound: frames of one size, and the animations that hold them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from laconic.atomic import replacing
from laconic.errors import MediaError

SUFFIXES = (".gif", ".png", ".webp")
"""Of the animations that can be written; GIF keeps 256 colours of a frame, the others all."""


@dataclass(frozen=True)
class Film:
    """RGB images in time order.

    Attributes:
        milliseconds: how long each is shown.

    Raises:
        MediaError: no frames, or frames of several sizes.
    """

    frames: tuple[Image.Image, ...]
    milliseconds: int = 100

    def __post_init__(self) -> None:
        sizes = {image.size for image in self.frames}
        if len(sizes) != 1:
            raise MediaError(f"a film has frames of one size; these {len(self.frames)} have {sorted(sizes)}.")
        object.__setattr__(self, "frames", tuple(image.convert("RGB") for image in self.frames))

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of a frame."""
        return self.frames[0].size

    def resize(self, size: tuple[int, int]) -> Film:
        """Every frame scaled to (width, height)."""
        return Film(tuple(image.resize(size) for image in self.frames), self.milliseconds)

    def save(self, path: str | Path) -> None:
        """Write an animation, whole or not at all. A frame equal to the one before it lengthens that one.

        Raises:
            ValueError: not the name of an animation.
        """
        kind = Path(path).suffix.lower()
        if kind not in SUFFIXES:
            raise ValueError(f"a film is written as {', '.join(SUFFIXES)}, not as {kind or 'a file without a suffix'}")
        first, *rest = self.frames
        more: dict[str, Any] = {"lossless": True} if kind == ".webp" else {}
        with replacing(Path(path)) as unfinished:
            shown = {"save_all": True, "append_images": rest, "duration": self.milliseconds, "loop": 0}
            first.save(unfinished, kind[1:].upper(), **shown, **more)
