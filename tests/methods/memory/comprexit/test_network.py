"""ComprExIT's fusion and transport, beside loops."""

import torch

from laconic.methods.memory.comprexit.network import Fusion, Transport, TransportedSlots


@torch.no_grad()
def test_fusion_equals_a_loop_over_layers():
    torch.manual_seed(0)
    fusion, states = Fusion(5, 6, 4), torch.randn(2, 3, 5, 6)
    fusion.mix.copy_(torch.randn(5))
    got = fusion(states)
    for b in range(2):
        for i in range(3):
            x = states[b, i]
            query = fusion.query(sum(w * x[k] for k, w in enumerate(fusion.mix.softmax(0))))
            scores = torch.stack([query @ (fusion.key(x[k]) + fusion.layer[k]) / 4**0.5 / 0.7 for k in range(5)])
            want = sum(a * fusion.value(x[k]) for k, a in enumerate(scores.softmax(0)))
            torch.testing.assert_close(got[b, i], want)


def test_5_fusion_is_per_token_and_every_layer_weighs():
    torch.manual_seed(0)
    fusion, states = Fusion(5, 6, 4), torch.randn(1, 4, 5, 6)
    edited = states.clone()
    edited[0, 2] += 1
    changed = (fusion(states) - fusion(edited)).abs().sum(-1)[0] > 0
    assert changed.tolist() == [False, False, True, False]
    fusion(states).square().sum().backward()
    assert bool((fusion.mix.grad != 0).all())


@torch.no_grad()
def test_4_token_masses_start_uniform():
    torch.manual_seed(0)
    transport, anchors = Transport(6, 4), torch.randn(2, 8, 6)
    torch.testing.assert_close(transport.masses(anchors), torch.full((2, 8), 1 / 8))
    plan = transport.plan(anchors, 2)
    torch.testing.assert_close(plan.sum(1), torch.full((2, 2), 0.5))


@torch.no_grad()
def test_3_equal_anchors_give_every_slot_the_mean_of_all_values():
    torch.manual_seed(0)
    transport = Transport(6, 4)
    anchors = torch.randn(1, 1, 6).expand(1, 8, 6)
    want = transport.value(transport.value_norm(anchors))[:, :1].expand(1, 4, 6)
    torch.testing.assert_close(transport(anchors, 4), want)


def test_gradients_stay_outside_the_model(make_llama, prompt):
    model = make_llama().requires_grad_(True)
    torch.manual_seed(0)
    net = TransportedSlots(model, 8, 16)
    net.contexts(model, prompt(1, 20), 0.5).square().sum().backward()
    assert all(p.grad is None for p in model.parameters())
    assert all(p.grad is not None for p in net.parameters())


def test_7_parameters(llama):
    d, width = 32, 16
    matrices = sum(p.numel() for p in TransportedSlots(llama, 8, width).parameters() if p.ndim == 2 and min(p.shape) > 1)
    assert matrices == 4 * d * d + 3 * d * width + 5 * width  # and a key for each of the five layers
