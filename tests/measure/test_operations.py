"""Counting operations: each formula against a count of multiply-adds by hand, whatever the operation is wrapped in."""

from contextlib import nullcontext
from threading import Thread

import pytest
import torch
import torch.nn.functional as F

from laconic.measure.operations import OperationCounter


def count(work, inference=False):
    with torch.inference_mode() if inference else nullcontext(), OperationCounter() as counter:
        work()
    return counter.flops


def t(*shape):
    return torch.randn(*shape)


def positive(n, *batch):
    x = t(*batch, n, n)
    return x @ x.mT + torch.eye(n)


B, H, N, M, D, K = 2, 3, 5, 7, 4, 6
WORK = {
    "matmul": (lambda: t(N, D) @ t(D, M), 2 * N * D * M),
    "batched": (lambda: torch.matmul(t(B, H, N, D), t(B, H, M, D).mT), 2 * B * H * N * D * M),
    "linear": (lambda: F.linear(t(B, N, D), t(M, D), t(M)), 2 * B * N * D * M),
    "einsum": (lambda: torch.einsum("hd,hnd->n", t(H, D), t(H, N, D)), 2 * H * N * D),
    "matrix times vector": (lambda: t(N, D) @ t(D), 2 * N * D),
    "vector times vector": (lambda: t(N) @ t(N), 2 * N),
    "convolution": (lambda: F.conv1d(t(B, H, 10), t(M, H, 3)), 2 * B * M * H * 3 * 8),
    "attention": (
        lambda: F.scaled_dot_product_attention(t(B, H, N, D), t(B, H, M, D), t(B, H, M, D)),
        4 * B * H * N * M * D,
    ),
    "causal": (
        lambda: F.scaled_dot_product_attention(*(t(B, H, N, D) for _ in "qkv"), is_causal=True),
        4 * B * H * D * (1 + 2 + 3 + 4 + 5),
    ),
    "distances": (lambda: torch.cdist(t(N, D), t(M, D), compute_mode="donot_use_mm_for_euclid_dist"), 3 * N * M * D),
    "solve": (lambda: torch.linalg.solve(positive(6), t(6, K)), 2 * 6 * 6 * 6 + 2 * 216 // 3 + 2 * 36 * K),
    "cholesky": (lambda: torch.linalg.cholesky(positive(6, B)), 2 * B * 6 * 6 * 6 + B * 72),
    "its solve": (lambda: torch.cholesky_solve(t(B, 6, K), torch.eye(6).expand(B, 6, 6)), 2 * B * 36 * K),
    "qr": (lambda: torch.linalg.qr(t(B, 9, 3)), B * 2 * (2 * 9 * 9 - 2 * 27 // 3)),
    "number by number": (lambda: (t(N, D) * 2).softmax(-1).sort(-1), 0),
}


@pytest.mark.parametrize("inference", [False, True])
@pytest.mark.parametrize("name", WORK)
def test_every_formula(name, inference):
    work, flops = WORK[name]
    assert count(work, inference) == flops


def test_nothing_is_counted_before_after_or_elsewhere():
    t(N, D) @ t(D, M)
    with OperationCounter() as counter:
        other = Thread(target=lambda: t(N, D) @ t(D, M))
        other.start()
        other.join()
    t(N, D) @ t(D, M)
    assert counter.flops == 0


def test_results_are_those_without_it_also_after_an_error():
    a, b = t(N, D), t(D, M)
    with pytest.raises(RuntimeError), OperationCounter() as counter:
        assert torch.equal(a @ b, torch.mm(a, b))
        _ = a @ a
    assert counter.flops == 2 * 2 * N * D * M
    assert count(lambda: a @ b) == 2 * N * D * M


def test_a_counter_within_another_is_counted_by_both():
    with OperationCounter() as outer, OperationCounter() as inner:
        t(N, D) @ t(D, M)
    assert outer.flops == inner.flops == 2 * N * D * M
