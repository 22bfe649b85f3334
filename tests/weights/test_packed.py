"""Packed weights bit by bit; transformers' own reading of them where compressed-tensors is installed."""

import json

import pytest
import torch
from helpers.weight_tools import logits
from safetensors.torch import load_file

import laconic
from laconic.weights.packed import Packed, words
from laconic.weights.restored import restored


@pytest.mark.parametrize("bits", [4, 8])
def test_codes_lie_in_words_from_the_lowest_bits_up(bits):
    torch.manual_seed(0)
    half, each = 2 ** (bits - 1), 32 // bits
    codes = torch.randint(-half, half, (3, 2 * each + 1), dtype=torch.int8)
    packed = words(codes, bits)
    assert packed.shape == (3, 3)
    for row in range(3):
        for j in range(codes.shape[1]):
            word = int(packed[row, j // each]) & 0xFFFFFFFF
            assert (word >> (bits * (j % each))) % 2**bits - half == int(codes[row, j])


def test_the_numbers_that_are_stood_for():
    packed = Packed(torch.tensor([[1, -2, 3, 4]], dtype=torch.int8), torch.tensor([[0.5, 2.0]]), 4)
    assert packed.weights().tolist() == [[0.5, -1.0, 6.0, 8.0]]
    assert packed.nbytes == 2 + 4


def written(model, folder, method):
    with restored(model), torch.no_grad():
        method.prepare(model)
        method.edit(model)
        method.write(model, folder)


def test_the_folder_holds_words_and_a_configuration(llama, tmp_path):
    written(llama, tmp_path, method := laconic.RTN(bits=4, group=16))
    state = load_file(tmp_path / "model.safetensors")
    name = "model.layers.1.mlp.down_proj"
    assert f"{name}.weight" not in state and state[f"{name}.weight_packed"].shape == (32, 8)
    assert state[f"{name}.weight_scale"].dtype == torch.bfloat16 and state[f"{name}.weight_shape"].tolist() == [32, 64]
    assert torch.equal(state[f"{name}.weight_packed"], words(method.packed[name].codes, 4))
    assert torch.equal(state["lm_head.weight"], llama.lm_head.weight)
    config = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))["quantization_config"]
    assert config["quant_method"] == "compressed-tensors" and config["ignore"] == ["lm_head"]
    assert config["config_groups"]["group_0"]["weights"]["num_bits"] == 4


@pytest.mark.parametrize("bits", [4, 8])
def test_transformers_reads_it(bits, llama, tmp_path, prompt):
    pytest.importorskip("compressed_tensors", reason="transformers needs compressed-tensors to read packed weights")
    from transformers import AutoModelForCausalLM

    method, ids = laconic.RTN(bits=bits, group=32), prompt(1, 9)
    written(llama, tmp_path, method)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    with restored(llama), torch.no_grad():
        method.edit(llama)
        want = logits(llama, ids)
    torch.testing.assert_close(logits(loaded, ids), want, atol=1e-3, rtol=1e-3)
