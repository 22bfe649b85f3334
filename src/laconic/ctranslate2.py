"""Whisper models that CTranslate2 has packed into one file, as the weights and the configuration that transformers reads.

The file is little-endian: version, name of the model's specification, its revision, number of variables; then for each the
name, the dimensions, the type and the bytes. A text is its length in two bytes, then its characters and a zero byte. Each
attention holds what transformers keeps apart: queries, keys and values of self-attention are one matrix, keys and values of
cross-attention another.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import WhisperConfig

TYPES = {0: "<f4", 4: "<f2"}
"""Number types by their code; the whole numbers of quantised models would need their scales, and are not read."""
SPECIFICATION = "WhisperSpec"
Variables = dict[str, Any]


def variables(path: Path) -> Variables:
    """All arrays of a file, by name, in fp32.

    Raises:
        ValueError: it is no whole CTranslate2 file of a Whisper model in 16 or 32 bits.
    """
    data, at = path.read_bytes(), 0

    def number(form: str) -> int:
        nonlocal at
        (value,) = struct.unpack_from(form, data, at)
        at += struct.calcsize(form)
        return int(value)

    def text() -> str:
        nonlocal at
        length = number("<H")
        at += length
        return data[at - length : at - 1].decode()

    try:
        number("<I")
        name = text()
        if name != SPECIFICATION:
            raise ValueError(f"{path} holds a model of the kind {name!r}; {SPECIFICATION!r} is read.")
        number("<I")
        found: Variables = {}
        for _ in range(number("<I")):
            name = text()
            shape = [number("<I") for _ in range(number("<B"))]
            kind, size = number("<B"), number("<I")
            if kind in TYPES:
                values = np.frombuffer(data, TYPES[kind], size // np.dtype(TYPES[kind]).itemsize, at)
                found[name] = values.reshape(shape).astype(np.float32)
            elif len(shape):  # single whole numbers are settings of CTranslate2's own
                raise ValueError(f"{name} of {path} is stored as whole numbers; a model in 16 or 32 bits is read.")
            at += size
    except (struct.error, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not a whole CTranslate2 file: {error}.") from error
    return found


def configuration(found: Variables) -> WhisperConfig:
    """The configuration that the shapes of the variables say; heads have 64 channels, as in all of OpenAI's models."""
    from transformers import WhisperConfig

    def depth(side: str) -> int:
        return len({name.split("/")[1] for name in found if name.startswith(f"{side}/layer_") and "/ffn/" in name})

    vocabulary, width = found["decoder/embeddings/weight"].shape
    english = vocabulary == 51864
    end = 50256 if english else 50257
    return WhisperConfig(
        vocab_size=vocabulary,
        d_model=width,
        encoder_layers=depth("encoder"),
        decoder_layers=depth("decoder"),
        encoder_attention_heads=width // 64,
        decoder_attention_heads=width // 64,
        encoder_ffn_dim=len(found["encoder/layer_0/ffn/linear_0/weight"]),
        decoder_ffn_dim=len(found["decoder/layer_0/ffn/linear_0/weight"]),
        num_mel_bins=found["encoder/conv1/weight"].shape[1],
        max_source_positions=len(found["encoder/position_encodings/encodings"]),
        max_target_positions=len(found["decoder/position_encodings/encodings"]),
        decoder_start_token_id=end + 1,
        bos_token_id=end,
        eos_token_id=end,
        pad_token_id=end,
    )


def state_dict(found: Variables) -> dict[str, Tensor]:
    """The weights under transformers' names."""
    import torch

    result: dict[str, Any] = {}

    def copy(theirs: str, ours: str, weight: str = "weight", bias: str = "bias") -> None:
        result[f"{ours}.weight"], result[f"{ours}.bias"] = found[f"{theirs}/{weight}"], found[f"{theirs}/{bias}"]

    def split(theirs: str, ours: str, names: str) -> None:
        parts = (np.split(found[f"{theirs}/{part}"], len(names)) for part in ("weight", "bias"))
        for name, weight, bias in zip(names, *parts, strict=True):
            result[f"{ours}.{name}_proj.weight"] = weight
            if name != "k":  # Whisper's keys have no bias; the file holds zeros in its place
                result[f"{ours}.{name}_proj.bias"] = bias

    for side in ("encoder", "decoder"):
        copy(f"{side}/layer_norm", f"model.{side}.layer_norm", "gamma", "beta")
        result[f"model.{side}.embed_positions.weight"] = found[f"{side}/position_encodings/encodings"]
        layer = 0
        while f"{side}/layer_{layer}/ffn/linear_0/weight" in found:
            theirs, ours = f"{side}/layer_{layer}", f"model.{side}.layers.{layer}"
            copy(f"{theirs}/self_attention/layer_norm", f"{ours}.self_attn_layer_norm", "gamma", "beta")
            split(f"{theirs}/self_attention/linear_0", f"{ours}.self_attn", "qkv")
            copy(f"{theirs}/self_attention/linear_1", f"{ours}.self_attn.out_proj")
            if side == "decoder":
                copy(f"{theirs}/attention/layer_norm", f"{ours}.encoder_attn_layer_norm", "gamma", "beta")
                split(f"{theirs}/attention/linear_0", f"{ours}.encoder_attn", "q")
                split(f"{theirs}/attention/linear_1", f"{ours}.encoder_attn", "kv")
                copy(f"{theirs}/attention/linear_2", f"{ours}.encoder_attn.out_proj")
            copy(f"{theirs}/ffn/layer_norm", f"{ours}.final_layer_norm", "gamma", "beta")
            copy(f"{theirs}/ffn/linear_0", f"{ours}.fc1")
            copy(f"{theirs}/ffn/linear_1", f"{ours}.fc2")
            layer += 1
    for name in ("conv1", "conv2"):
        copy(f"encoder/{name}", f"model.encoder.{name}")
    result["model.decoder.embed_tokens.weight"] = found["decoder/embeddings/weight"]
    return {name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in result.items()}
