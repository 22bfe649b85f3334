"""The contract of generators: a text becomes an image or a film."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from laconic.codec.standalone import StandaloneMethod


@dataclass(kw_only=True)
class GeneratorMethod(StandaloneMethod):
    """Draws what a text says. A subclass gives `build` and `generate`."""

    instead: ClassVar[str] = (
        "draws an image by itself and changes no model. Use generate(prompt) of the method, or "
        "`laconic generate --prompt TEXT --method NAME -o IMAGE`."
    )

    def generate(self, prompt: str, seed: int = 0) -> Any:
        """The image or film that `prompt` asks for; equal seeds give equal ones.

        Raises:
            PromptError: a prompt that the network cannot read.
        """
        raise NotImplementedError(f"{type(self).__name__} must define generate().")
