"""A model that hears, with random weights, and a sound file."""

import wave
from pathlib import Path

import numpy as np
import torch

from laconic.testbed.audio_model import build_model, build_processor, build_tokenizer


def save_hearing(folder: Path) -> str:
    """A Qwen2-Audio-class model and its processor in ``folder``."""
    torch.manual_seed(0)
    model = build_model()
    model.generation_config.eos_token_id = None
    model.save_pretrained(folder)
    build_processor(build_tokenizer()).save_pretrained(folder)
    return str(folder)


def saved(path: Path, seconds: float) -> str:
    """Noise at 16 kHz in a WAV file."""
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, round(seconds * 16_000))
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 16_000, 0, "NONE", ""))
        file.writeframes((samples * 32767).astype("<i2").tobytes())
    return str(path)
