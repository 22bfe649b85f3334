"""Inputs are moved to the model, and cut where they run along the ids."""

import torch

from laconic.prompts.inputs import on_device


def test_pixels_take_the_dtype_of_the_model_and_ids_keep_theirs(llama):
    given = {"pixel_values": torch.ones(2, 3, dtype=torch.float64), "token_type_ids": torch.tensor([[0, 1, 1]]), "n": [1]}
    moved = on_device(llama, given, tokens=2)
    assert moved["pixel_values"].dtype == llama.dtype and moved["pixel_values"].shape == (2, 3)
    assert moved["token_type_ids"].tolist() == [[0, 1]] and moved["token_type_ids"].dtype == torch.long
    assert moved["n"] == [1]
    assert on_device(llama, given)["token_type_ids"].tolist() == [[0, 1, 1]]
