"""CrossLMM's cross-attentions against loops over their equations. "line n" is what the card must show."""

import math

import pytest
import torch
from helpers.vision_tools import open_gates

from laconic.measure.cost import Shape
from laconic.methods.tokens.crosslmm.network import Beside, CrossAttention, Insert, inserted

SHAPE = Shape(weights=(), heads=4, kv_heads=2, head_dim=6, head_weights=0, itemsize=4)
WIDTH = 16


def loop(net, rows, memory):
    """One sequence: rows [n, D] over visual tokens [N, D]."""
    out = []
    for row in rows:
        found = []
        for head in range(4):
            query = net.query(row)[6 * head : 6 * head + 6]
            group = slice(6 * (head // 2), 6 * (head // 2) + 6)
            keys, values = net.key(memory)[:, group], net.value(memory)[:, group]
            weights = [math.exp(float(query @ key) / math.sqrt(6)) for key in keys]
            found.append(sum(w / sum(weights) * value for w, value in zip(weights, values, strict=True)))
        out.append(net.out(torch.cat(found)))
    return torch.stack(out)


@pytest.fixture
def net():
    torch.manual_seed(0)
    return CrossAttention(WIDTH, SHAPE).requires_grad_(False)


def test_cross_attention_equals_a_loop_and_padding_is_not_seen(net):
    rows, memory = torch.randn(3, 5, WIDTH), torch.randn(3, 7, WIDTH)
    valid = torch.arange(7) < torch.tensor([7, 4, 0])[:, None]
    found = net(rows, net.side(memory, valid))
    for b, n in enumerate((7, 4)):
        torch.testing.assert_close(found[b], loop(net, rows[b], memory[b, :n]), rtol=1e-4, atol=1e-5)
    assert not found[2].any()  # no image
    torch.testing.assert_close(net(rows, net.side(memory))[0], found[0], rtol=1e-4, atol=1e-5)


def test_what_is_looked_at_is_a_set(net):
    """line 8"""
    rows, memory = torch.randn(1, 5, WIDTH), torch.randn(1, 7, WIDTH)
    found = net(rows, net.side(memory))
    torch.testing.assert_close(net(rows, net.side(memory[:, torch.randperm(7)])), found, rtol=1e-4, atol=1e-5)


def test_both_attentions_read_the_same_state_and_touch_their_own_rows():
    """lines 3 and 4"""
    torch.manual_seed(0)
    insert = Insert(WIDTH, SHAPE, True, True).requires_grad_(False)
    insert.visual_gate.fill_(0.3)
    insert.text_gate.fill_(-0.2)
    hidden, memory = torch.randn(2, 6, WIDTH), torch.randn(2, 7, WIDTH)
    shown = torch.tensor([[0, 1, 1, 0, 0, 0], [0, 0, 1, 1, 1, 0]]).bool()
    visual, text = insert.sides(memory)
    more = insert(hidden, shown, visual, text)
    rows, seen = insert.norm(hidden), insert.memory_norm(memory)
    for b in range(2):
        want = torch.where(
            shown[b][:, None],
            math.tanh(0.3) * loop(insert.visual, rows[b], seen[b]),
            math.tanh(-0.2) * loop(insert.text, rows[b], seen[b]),
        )
        torch.testing.assert_close(more[b], want, rtol=1e-4, atol=1e-5)
    assert not insert(hidden, shown, visual, None)[~shown].any() and not insert(hidden, shown, None, text)[shown].any()
    torch.testing.assert_close(insert(hidden, None, None, text)[~shown], more[~shown], rtol=1e-4, atol=1e-5)
    assert not insert(hidden, None, None, None).any()


def test_gates_of_zero_add_nothing_and_learn_first():
    """line 1"""
    torch.manual_seed(0)
    insert = Insert(WIDTH, SHAPE, True, True)
    hidden, memory = torch.randn(1, 6, WIDTH), torch.randn(1, 7, WIDTH)
    shown = torch.arange(6)[None] < 3
    more = insert(hidden, shown, *insert.sides(memory))
    assert not more.any()
    more.square().sum().add(more.sum()).backward()
    for gate, part in ((insert.visual_gate, insert.visual), (insert.text_gate, insert.text)):
        assert gate.grad.abs() > 1e-3 and not any(weight.grad.any() for weight in part.parameters())


def test_layers_and_parameters():
    """line 2: seven inserts of 28 layers, and 43 M parameters in the paper's first stage"""
    layers = inserted(28, 4, 3)
    assert layers == (3, 7, 11, 15, 19, 23, 27)
    large = Shape(weights=(), heads=12, kv_heads=2, head_dim=128, head_weights=0, itemsize=2)
    with torch.device("meta"):
        attention = sum(weight.numel() for weight in CrossAttention(1536, large).parameters())
    projector = 1152 * 1536 + 1536**2 + 2 * 1536
    assert round((projector + 7 * attention) / 1e6) == 43


def test_without_inserts_there_is_the_projector_alone(vlm):
    assert not Beside(vlm, (3, 7), False, False).layers
    names = {name.split(".")[0] for name, _ in open_gates(Beside(vlm, (3,), False, False)).named_parameters()}
    assert names == {"readout"}
