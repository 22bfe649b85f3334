"""Images with fewer pixels: what a model can still answer about them says little about a choice of visual tokens.

The idea of setting such samples aside is VTC-Bench's (arXiv 2510.07143).
"""

from PIL import Image

FACTOR = 4
"""Factor by which the sides are shortened."""


def coarse(image: Image.Image, factor: int = FACTOR) -> Image.Image:
    """`image` averaged over squares of `factor` x `factor` pixels and enlarged to its original size."""
    width, height = image.size
    small = image.resize((max(1, width // factor), max(1, height // factor)), Image.Resampling.BOX)
    return small.resize((width, height), Image.Resampling.BICUBIC)
