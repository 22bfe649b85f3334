"""A sound written down by a speech model whose decoder looks at fewer encoder tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedModel

from laconic.families.audio.whisper import columns_of_a_token, core_of
from laconic.media.audio import RATE, Sound
from laconic.method import Method
from laconic.speech.figures import SpeechStats, Window
from laconic.speech.session import compress_encoder


@dataclass(frozen=True)
class Transcript:
    """What was said, what it cost, and what became of each window that was encoded."""

    text: str
    stats: SpeechStats
    windows: Sequence[Window]


def transcribe(
    model: PreTrainedModel, processor: Any, sound: Sound, *methods: Method | str, max_new_tokens: int | None = None
) -> Transcript:
    """Write down a sound, greedily; one of several windows by the model's own algorithm for long sounds.

    Args:
        model, processor: as `laconic.load("whisper-tiny-en")` gives them.
        methods: see `laconic.compress_encoder`.
        max_new_tokens: of every window; None: as many as the model can write.
    """
    inputs, long = inputs_of(model, processor, sound), is_long(model, sound)
    options: dict[str, Any] = {"return_timestamps": True} if long else {}
    if max_new_tokens is not None:
        options["max_new_tokens"] = max_new_tokens
    with torch.inference_mode(), compress_encoder(model, *methods) as session:
        written = model.generate(**inputs, do_sample=False, **options)  # type: ignore[operator]
    return Transcript(processor.batch_decode(written, skip_special_tokens=True)[0].strip(), session.stats, session.windows)


def is_long(model: PreTrainedModel, sound: Sound) -> bool:
    """Whether a sound has more than one window."""
    columns = core_of(model).encoder.embed_positions.num_embeddings * columns_of_a_token(model)
    return len(sound.samples) > columns * RATE // 100


def inputs_of(model: PreTrainedModel, processor: Any, sound: Sound) -> Any:
    """Spectrogram of a sound, and its mask: 1 at columns of sound, 0 at those of padding."""
    settings: dict[str, Any] = {"truncation": False, "padding": "longest"} if is_long(model, sound) else {}
    given = processor(sound.samples, sampling_rate=RATE, return_tensors="pt", return_attention_mask=True, **settings)
    inputs = given.to(model.device, model.dtype)
    inputs["attention_mask"] = inputs["attention_mask"].long()
    return inputs
