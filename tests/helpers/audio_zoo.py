"""Tiny random models of the real audio classes, and inputs for them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import (
    Qwen2AudioConfig,
    Qwen2AudioForConditionalGeneration,
    WhisperConfig,
    WhisperForConditionalGeneration,
)

AUDIO, BEGIN, END, MELS = 90, 91, 92, 8
FRONT = {"num_mel_bins": MELS, "encoder_layers": 2, "encoder_attention_heads": 2, "encoder_ffn_dim": 48, "d_model": 32}


def qwen2_audio(columns: int = 200, seed: int = 0) -> Qwen2AudioForConditionalGeneration:
    """A model whose windows have `columns` columns of the spectrogram, columns / 4 tokens."""
    torch.manual_seed(seed)
    audio = FRONT | {"model_type": "qwen2_audio_encoder", "max_source_positions": columns // 2}
    text = {
        "model_type": "qwen2",
        "vocab_size": 97,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "bos_token_id": 1,
        "eos_token_id": None,
        "pad_token_id": 0,
    }
    return Qwen2AudioForConditionalGeneration(
        Qwen2AudioConfig(audio_config=audio, text_config=text, audio_token_index=AUDIO)
    ).eval()


def heard(lengths: list[int], columns: int = 200, question: int = 5, seed: int = 1) -> dict[str, Tensor]:
    """One prompt with a sound of each length, in tokens of 4 columns, between two marks, and a question after them."""
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(len(lengths), MELS, columns, generator=generator)
    mask = torch.zeros(len(lengths), columns, dtype=torch.long)
    ids: list[int] = [1, 5]
    for clip, length in enumerate(lengths):
        mask[clip, : 4 * length] = 1
        features[clip, :, 4 * length :] = -1.5
        ids += [BEGIN, *[AUDIO] * length, END]
    ids += torch.randint(2, 80, (question,), generator=generator).tolist()
    tokens = torch.tensor([ids])
    return {
        "input_ids": tokens,
        "attention_mask": torch.ones_like(tokens),
        "input_features": features,
        "feature_attention_mask": mask,
    }


def whisper(columns: int = 200, seed: int = 0, **settings: Any) -> WhisperForConditionalGeneration:
    """A model whose windows have `columns` columns of the spectrogram, columns / 2 encoder tokens."""
    torch.manual_seed(seed)
    config = WhisperConfig(
        **FRONT | settings,
        vocab_size=97,
        decoder_layers=2,
        decoder_attention_heads=2,
        decoder_ffn_dim=48,
        max_source_positions=columns // 2,
        max_target_positions=64,
        decoder_start_token_id=1,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
        suppress_tokens=None,
        begin_suppress_tokens=None,
    )
    model = WhisperForConditionalGeneration(config).eval()
    model.generation_config.update(eos_token_id=None, max_length=None)
    return model
