"""A video of any length, read as its frames come: they pass through the encoder a few at a time, and only what the method
holds of them stays."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from transformers import PreTrainedModel

from laconic.errors import MediaError, SessionError
from laconic.families.vision import vision_family_of
from laconic.families.vision.frames import encode_frames
from laconic.method import Method
from laconic.prompts.clip import around
from laconic.prompts.reader import tokenizer_of
from laconic.stream.film import ReadsFilms


def pixels_of(frames: Sequence[Image.Image], side: int, reader: Any) -> Tensor:
    """Pixels [T, 3, side, side] of RGB frames, normalised as the image half of a processor says; to -1 .. 1 where `reader`
    has none."""
    sized = [
        frame if frame.size == (side, side) else frame.resize((side, side), Image.Resampling.BICUBIC) for frame in frames
    ]
    values = torch.from_numpy(np.stack([np.asarray(frame.convert("RGB")) for frame in sized])).permute(0, 3, 1, 2).float()
    images = getattr(reader, "image_processor", None)
    mean, std = (
        torch.tensor(getattr(images, f"image_{name}", None) or [0.5] * 3)[:, None, None] for name in ("mean", "std")
    )
    return (values / 255 - mean) / std


@torch.inference_mode()
def ask(
    model: PreTrainedModel,
    reader: Any,
    method: Method,
    frames: Iterable[Image.Image],
    question: str,
    *,
    at_once: int = 16,
    **generation: Any,
) -> str:
    """Answer a question about a video whose frames are taken one after the other, so that it may last for hours.

    The prompt is the one that a session with `method` makes of the same frames.

    Args:
        reader: processor of the model, or a tokenizer that has its chat template.
        method: one that reads videos piece by piece.
        frames: RGB, in time order, such as ``(f.image for f in laconic.load_frames(path, 7200))``.
        at_once: frames that the encoder sees together.
        generation: options of `generate()`.

    Raises:
        SessionError: a method that needs all frames at once. MediaError: no frame.
    """
    if not isinstance(method, ReadsFilms):
        raise SessionError(f"{method.name} needs all frames of a video at once; use a method that reads them as they come.")
    method.attach(model)
    table: Any = model.get_input_embeddings()
    side, device = vision_family_of(model).image_side(model), model.device
    assert side is not None
    before, after = (x.to(device) for x in around(reader, question, vision_family_of(model).token_id(model, "video")))
    film, closing = method.film(model, table(torch.cat([before, after])).float()), None
    coming = iter(frames)
    while some := list(islice(coming, at_once)):
        seen = encode_frames(model, pixels_of(some, side, reader)[None])
        film.add(seen.tokens[0].float(), [x[0] for x in seen.states])
        closing = seen.closing
    if closing is None:
        raise MediaError("this video has no frame; give at least one.")
    soft = film.soft()
    prompt = torch.cat([table(before), soft.to(table.weight), closing.to(table.weight), table(after)])[None]
    mask = torch.ones(prompt.shape[:2], dtype=torch.long, device=device)
    answer = model.generate(inputs_embeds=prompt, attention_mask=mask, **generation)  # type: ignore[operator]
    return str(tokenizer_of(reader).decode(answer[0], skip_special_tokens=True)).strip()
