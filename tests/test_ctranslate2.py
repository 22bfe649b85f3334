"""A tiny Whisper written in CTranslate2's format here, and read back: the same weights, or a reason."""

import struct

import numpy as np
import pytest
import torch
from transformers import WhisperConfig, WhisperForConditionalGeneration

from laconic import ctranslate2

WIDTH = 128


def tiny():
    torch.manual_seed(0)
    config = WhisperConfig(
        vocab_size=51864, d_model=WIDTH, encoder_layers=1, decoder_layers=2, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=32, decoder_ffn_dim=48, num_mel_bins=8, max_source_positions=20,
        max_target_positions=12,
    )  # fmt: skip
    model = WhisperForConditionalGeneration(config).eval()
    for name, weight in model.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(weight)
    return model


def packed(model) -> dict[str, np.ndarray]:
    """The model's weights under the names of the format."""
    ours = {name: value.numpy() for name, value in model.state_dict().items()}
    found: dict[str, np.ndarray] = {}

    def put(theirs, name, weight="weight", bias="bias"):
        found[f"{theirs}/{weight}"], found[f"{theirs}/{bias}"] = ours[f"{name}.weight"], ours[f"{name}.bias"]

    def joined(theirs, name, letters):
        weights = [ours[f"{name}.{x}_proj.weight"] for x in letters]
        biases = [ours.get(f"{name}.{x}_proj.bias", np.zeros(WIDTH, np.float32)) for x in letters]
        found[f"{theirs}/weight"], found[f"{theirs}/bias"] = np.concatenate(weights), np.concatenate(biases)

    for side, layers in (("encoder", 1), ("decoder", 2)):
        put(f"{side}/layer_norm", f"model.{side}.layer_norm", "gamma", "beta")
        found[f"{side}/position_encodings/encodings"] = ours[f"model.{side}.embed_positions.weight"]
        for i in range(layers):
            a, b = f"{side}/layer_{i}", f"model.{side}.layers.{i}"
            put(f"{a}/self_attention/layer_norm", f"{b}.self_attn_layer_norm", "gamma", "beta")
            joined(f"{a}/self_attention/linear_0", f"{b}.self_attn", "qkv")
            put(f"{a}/self_attention/linear_1", f"{b}.self_attn.out_proj")
            if side == "decoder":
                put(f"{a}/attention/layer_norm", f"{b}.encoder_attn_layer_norm", "gamma", "beta")
                joined(f"{a}/attention/linear_0", f"{b}.encoder_attn", "q")
                joined(f"{a}/attention/linear_1", f"{b}.encoder_attn", "kv")
                put(f"{a}/attention/linear_2", f"{b}.encoder_attn.out_proj")
            put(f"{a}/ffn/layer_norm", f"{b}.final_layer_norm", "gamma", "beta")
            put(f"{a}/ffn/linear_0", f"{b}.fc1")
            put(f"{a}/ffn/linear_1", f"{b}.fc2")
    for name in ("conv1", "conv2"):
        put(f"encoder/{name}", f"model.encoder.{name}")
    found["decoder/embeddings/weight"] = ours["model.decoder.embed_tokens.weight"]
    return found


def written(arrays: dict[str, np.ndarray], specification: str = "WhisperSpec", kind: int = 0) -> bytes:
    text = lambda x: struct.pack("<H", len(x) + 1) + x.encode() + b"\0"  # noqa: E731
    data = struct.pack("<I", 6) + text(specification) + struct.pack("<II", 3, len(arrays))
    for name, array in arrays.items():
        raw = array.astype({0: "<f4", 4: "<f2"}.get(kind, "<i1")).tobytes()
        shape = struct.pack("<B", array.ndim) + struct.pack(f"<{array.ndim}I", *array.shape)
        data += text(name) + shape + struct.pack("<BI", kind, len(raw)) + raw
    return data


def test_the_same_model_comes_back(tmp_path):
    model, path = tiny(), tmp_path / "model.bin"
    path.write_bytes(written(packed(model)))
    found = ctranslate2.variables(path)
    read = WhisperForConditionalGeneration(ctranslate2.configuration(found)).eval()
    assert read.load_state_dict(ctranslate2.state_dict(found), strict=False).missing_keys == ["proj_out.weight"]
    read.tie_weights()
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, read.state_dict()[name]), name
    assert (read.config.eos_token_id, read.config.decoder_start_token_id) == (50256, 50257)


def test_16_bits(tmp_path):
    (tmp_path / "model.bin").write_bytes(written({"a": np.array([0.1, 2.0], np.float32)}, kind=4))
    found = ctranslate2.variables(tmp_path / "model.bin")["a"]
    assert found.dtype == np.float32 and found.tolist() == np.array([0.1, 2.0], np.float16).astype(np.float32).tolist()


def test_what_is_not_read(tmp_path):
    path, whole = tmp_path / "model.bin", written({"a": np.ones(4, np.float32)})
    path.write_bytes(written({}, "TransformerSpec"))
    with pytest.raises(ValueError, match="kind 'TransformerSpec'; 'WhisperSpec' is read"):
        ctranslate2.variables(path)
    path.write_bytes(written({"a": np.ones(4, np.float32)}, kind=1))
    with pytest.raises(ValueError, match=r"a of .* is stored as whole numbers"):
        ctranslate2.variables(path)
    for end in (3, 12, 30, len(whole) - 1):
        path.write_bytes(whole[:end])
        with pytest.raises(ValueError):
            ctranslate2.variables(path)
