"""Images as codecs take and give them: tensors [B, 3, H, W] in -1 .. 1, and how far one is from another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from laconic.errors import MediaError


def pixels(images: NDArray[np.uint8] | Sequence[Image.Image]) -> Tensor:
    """RGB images of one size [B, H, W, 3], or as Pillow has them, as numbers [B, 3, H, W] in -1 .. 1."""
    stacked: Any = np.stack([np.asarray(image) for image in images])
    return torch.from_numpy(stacked).permute(0, 3, 1, 2).float() / 127.5 - 1


def shown(x: Tensor) -> list[Image.Image]:
    """The images [B, 3, H, W] in -1 .. 1, rounded to eight bits."""
    bytes_ = ((x.detach().cpu() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    return [Image.fromarray(image) for image in bytes_.permute(0, 2, 3, 1).numpy()]


def psnr(drawn: Tensor, wanted: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of each image [B] in dB, after rounding to eight bits; equal images: infinite."""
    a, b = (((x.clamp(-1, 1) + 1) * 127.5).round() for x in (drawn, wanted))
    return 10 * torch.log10(255**2 / (a - b).square().flatten(1).mean(1))


def check_image(codec: str, image: Any, size: tuple[int, int]) -> Image.Image:
    """`image` as RGB.

    Args:
        size: width and height that the codec reads.

    Raises:
        MediaError: no image, or one of another size.
    """
    if not isinstance(image, Image.Image):
        raise MediaError(
            f"{codec} reads a Pillow image, not {type(image).__name__}; open files with laconic.media.load_image."
        )
    if image.size != size:
        raise MediaError(
            f"{codec}: the image is {image.width} x {image.height} pixels and this codec reads {size[0]} x {size[1]}; "
            f"resize it with image.resize({size}), or `laconic encode --resize`."
        )
    return image.convert("RGB")
