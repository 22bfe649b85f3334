"""Slices of modules, and the channels of heads."""

import torch
from torch import nn

from laconic.weights.resize import channels, resize, scaled


def test_rows_columns_biases_and_sizes():
    linear, weight = nn.Linear(6, 4), None
    weight, bias = linear.weight.detach().clone(), linear.bias.detach().clone()
    resize(linear, rows=torch.tensor([3, 1]), columns=torch.tensor([0, 5, 2]))
    assert torch.equal(linear.weight, weight[[3, 1]][:, [0, 5, 2]]) and torch.equal(linear.bias, bias[[3, 1]])
    assert (linear.out_features, linear.in_features) == (2, 3) and linear(torch.ones(3)).shape == (2,)
    embedding = nn.Embedding(5, 4)
    resize(embedding, columns=torch.tensor([1, 2]))
    assert embedding.embedding_dim == 2 and embedding.weight.shape == (5, 2)


def test_rows_and_columns_are_multiplied():
    weight = torch.arange(6.0).view(2, 3)
    made = scaled(weight, rows=torch.tensor([1.0, 2.0]), columns=torch.tensor([1.0, 0.0, -1.0]))
    assert made.tolist() == [[0, 0, -2], [6, 0, -10]]
    assert scaled(torch.ones(2), rows=torch.tensor([3.0, 4.0])).tolist() == [3, 4]


def test_channels_of_heads():
    assert channels(torch.tensor([0, 2]), 3).tolist() == [0, 1, 2, 6, 7, 8]
