"""Sensitivities weight by weight, and what narrowing changes."""

import copy

import pytest
import torch
from helpers.moe_tools import MIXTRAL, QWEN, moe
from helpers.weight_tools import logits, windows

from laconic.fit.losses import student_loss
from laconic.methods.weights.slimmoe.network import narrowed, sensitivity
from laconic.weights.experts import mixtures

BOTH = pytest.mark.parametrize("kind", [MIXTRAL, QWEN], ids=["mixtral", "qwen3-moe"])


def student_of(model):
    return copy.deepcopy(model).requires_grad_(True)


@BOTH
def test_sensitivity_weight_by_weight(kind):
    """The student is the teacher, as in the first stage, and no sensitivity is lost."""
    teacher = moe(kind)
    student, batches = student_of(teacher), [windows(teacher, 2, 10, seed=s) for s in (1, 2)]
    found = sensitivity(student, teacher, batches, top=8)
    experts = mixtures(student, "x")[1].experts
    want = torch.zeros_like(found[1])
    for ids in batches:
        student.zero_grad()
        p = logits(teacher, ids).softmax(-1)
        log_q = student(input_ids=ids).logits.log_softmax(-1)
        loss = 0.0
        for row in range(2):
            for t in range(10):
                for v in p[row, t].argsort(descending=True)[:8]:
                    loss = loss - p[row, t, v] * log_q[row, t, v] / 20
        loss.backward()
        m = want.shape[1]
        for e in range(6):
            for j in range(m):
                worth = (experts.gate_up_proj[e, j] * experts.gate_up_proj.grad[e, j]).abs().sum()
                worth += (experts.gate_up_proj[e, m + j] * experts.gate_up_proj.grad[e, m + j]).abs().sum()
                want[e, j] += worth + (experts.down_proj[e, :, j] * experts.down_proj.grad[e, :, j]).abs().sum()
    assert want.any()
    torch.testing.assert_close(found[1], want.detach(), atol=1e-6, rtol=1e-3)


def test_the_order_of_neurons_does_not_matter(prompt):
    teacher = moe(MIXTRAL)
    shuffled, ids = copy.deepcopy(teacher), prompt(1, 12)
    drawn = torch.Generator().manual_seed(3)
    for block in mixtures(shuffled, "x"):
        order = torch.stack([torch.randperm(block.neurons, generator=drawn) for _ in range(6)])
        block.narrow(order)
    torch.testing.assert_close(logits(shuffled, ids), logits(teacher, ids), atol=1e-5, rtol=1e-5)
    made = []
    for model in (teacher, shuffled):
        student = student_of(model)
        narrowed(student, sensitivity(student, teacher, [windows(teacher)], 8), 40)
        made.append(logits(student, ids))
    torch.testing.assert_close(made[0], made[1], atol=1e-4, rtol=1e-4)


def test_the_first_router_decides_as_before_and_counts_follow(prompt):
    teacher = moe(QWEN)
    student, ids = student_of(teacher), prompt(1, 12)
    narrowed(student, sensitivity(student, teacher, [windows(teacher)], 8), 16)
    routed = []
    for model in (teacher, student):
        hook = mixtures(model, "x")[0].router.register_forward_hook(lambda m, args, out: routed.append(out[2]))
        logits(model, ids)
        hook.remove()
    assert torch.equal(*routed)
    experts = sum(p.numel() for block in mixtures(student, "x") for p in block.experts.parameters())
    assert experts == 2 * 3 * 6 * 16 * 64 and student.config.moe_intermediate_size == 16


def test_the_loss_does_not_renormalise():
    student = torch.randn(2, 5, 20, requires_grad=True)
    student_loss(student, student.detach(), 4).backward()
    assert student.grad.abs().max() > 1e-3
    p = student.detach().softmax(-1)
    top = p.topk(4, -1)
    want = p * top.values.sum(-1, keepdim=True)
    want = want.scatter_add(-1, top.indices, -top.values) / 10
    torch.testing.assert_close(student.grad, want)
