"""Many questions at once: one user's turn each, its image before the question, through the processor's chat template."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from PIL import Image

from laconic.errors import UnsupportedModelError


def turn(processor: Any, question: str) -> str:
    """The text of a turn that shows one image and asks ``question``, up to where the answer begins."""
    content = [{"type": "image"}, {"type": "text", "text": question}]
    return str(processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True))


def encode(processor: Any, questions: Sequence[str], images: Sequence[Image.Image]) -> Any:
    """Model inputs of a batch, padded on the left, ready for ``generate``.

    Raises:
        UnsupportedModelError: `processor` does not prepare images.
    """
    if not hasattr(processor, "image_processor"):
        raise UnsupportedModelError(
            f"a {type(processor).__name__} does not prepare images; give a vision language model with its processor."
        )
    processor.tokenizer.padding_side = "left"
    texts = [turn(processor, question) for question in questions]
    return processor(images=list(images), text=texts, padding=True, return_tensors="pt")
