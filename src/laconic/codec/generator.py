"""The contract of generators: a text becomes an image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from PIL import Image

from laconic.codec.standalone import StandaloneMethod


@dataclass(kw_only=True)
class GeneratorMethod(StandaloneMethod):
    """Draws what a text says. A subclass gives `build` and `generate`."""

    instead: ClassVar[str] = (
        "draws an image by itself and changes no model. Use generate(prompt) of the method, or "
        "`laconic generate --prompt TEXT --method NAME -o IMAGE`."
    )

    def generate(self, prompt: str, seed: int = 0) -> Image.Image:
        """The image that `prompt` asks for; equal seeds give equal images.

        Raises:
            PromptError: a prompt that the network cannot read.
        """
        raise NotImplementedError(f"{type(self).__name__} must define generate().")
