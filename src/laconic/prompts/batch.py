"""Many questions at once: one user's turn each, its image, video or sound before the question, through the processor's chat
template."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from laconic.errors import UnsupportedModelError
from laconic.prompts.sound import check_length, hears


def turn(processor: Any, question: str, kind: str = "image") -> str:
    """The text of a turn that shows one image, or another ``kind`` of medium, and asks ``question``, up to where the answer
    begins."""
    content = [{"type": kind}, {"type": "text", "text": question}]
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


def encode_sounds(processor: Any, questions: Sequence[str], sounds: Sequence[NDArray[np.float32]]) -> Any:
    """Model inputs of a batch with one sound each, padded on the left, ready for ``generate``.

    Raises:
        UnsupportedModelError: `processor` does not prepare sound.
        MediaError: a sound that the model's window does not hold.
    """
    if not hears(processor):
        raise UnsupportedModelError(
            f"a {type(processor).__name__} does not prepare sound; give a model that hears, with its processor."
        )
    check_length(processor, sounds)
    processor.tokenizer.padding_side = "left"
    texts = [turn(processor, question, "audio") for question in questions]
    rate = processor.feature_extractor.sampling_rate
    return processor(text=texts, audio=list(sounds), sampling_rate=rate, padding=True, return_tensors="pt")


def encode_clips(processor: Any, questions: Sequence[str], clips: Sequence[NDArray[np.uint8]]) -> Any:
    """Model inputs of a batch with one video each, padded on the left, ready for ``generate``.

    Args:
        clips: uint8 [T, H, W, 3] each, of equally many frames, all of which are shown.

    Raises:
        UnsupportedModelError: `processor` does not prepare videos.
    """
    if getattr(processor, "video_processor", None) is None:
        raise UnsupportedModelError(
            f"a {type(processor).__name__} does not prepare videos; give a model with a video input and its processor."
        )
    processor.tokenizer.padding_side = "left"
    texts = [turn(processor, question, "video") for question in questions]
    videos = [[Image.fromarray(frame) for frame in clip] for clip in clips]
    return processor(videos=videos, text=texts, do_sample_frames=False, padding=True, return_tensors="pt")
