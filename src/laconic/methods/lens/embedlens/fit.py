"""Measuring for EmbedLens: the words that mark the sinks and the dead among a model's visual tokens (arXiv 2603.00510)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from laconic.fit.contract import Fit
from laconic.fit.images import batched, chosen
from laconic.methods.lens.embedlens.anchors import discover


@dataclass(kw_only=True)
class EmbedLensFit(Fit):
    """What repeats among the visual tokens of different images.

    Args:
        samples: number of images (64; it takes at least 32 to find what repeats).
        batch_size: images that run together (16).
        file: JSON lines with "image" and "question" instead of drawn scenes; all of them are used.
    """

    samples: int = 64
    batch_size: int = 16
    file: str = ""

    method: ClassVar[str] = "embedlens"

    def facts(self) -> dict[str, Any]:
        asked = chosen(self.file, self.samples, self.seed)
        found = discover(self.model, batched(self.tokenizer, asked, self.batch_size, self.model.device))
        shares = ", ".join(f"{name} {100 * share:.1f} %" for name, share in found.settings["shares"].items())
        self.note(f"{found.settings['images']} images: {shares}")
        return found.data | found.settings
