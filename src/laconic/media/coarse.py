"""Images with fewer pixels: what a model still answers of them says little about a choice of visual tokens.

The idea to set such samples aside is VTC-Bench's (arXiv 2510.07143).
"""

from PIL import Image

FACTOR = 4
"""Times by which the sides are shortened."""


def coarse(image: Image.Image, factor: int = FACTOR) -> Image.Image:
    """`image` averaged over squares of `factor` pixels a side, and enlarged to its old size again."""
    width, height = image.size
    small = image.resize((max(1, width // factor), max(1, height // factor)), Image.Resampling.BOX)
    return small.resize((width, height), Image.Resampling.BICUBIC)
