"""The compiled loop over dense entries against the softmax in fp64, in place and wherever the entries lie."""

import math
import threading
from concurrent.futures import Future

import pytest
import torch
from torch.testing import assert_close

from laconic.cache.parts.base import DensePart
from laconic.ops import attend as attending
from laconic.ops import compiled
from laconic.ops.attend import attend, attend_alone

B, HKV, N, D, DV = 2, 2, 150, 16, 8


def normal(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def softmax(q, k, v, scale, bias=None):
    """-> output [B, H, T, Dv], lse [B, H, T], fp64."""
    (b, h, t, d), hkv = q.shape, k.shape[1]
    logits = q.double().reshape(b, hkv, -1, d) @ k.double().transpose(-1, -2) * scale
    logits = logits if bias is None else logits + bias.double()[:, :, None]
    lse = logits.logsumexp(-1)
    weights = torch.exp(logits - lse.masked_fill(lse.isneginf(), 0)[..., None])
    return (weights @ v.double()).view(b, h, t, -1), lse.view(b, h, t)


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """The loop runs for small tensors, too, divided among three threads, and nothing else does."""
    monkeypatch.setattr(compiled, "DENSE", 1)
    monkeypatch.setattr(compiled, "SHARE", 1)
    monkeypatch.setattr(compiled.torch, "get_num_threads", lambda: 3)
    monkeypatch.setattr(attending, "_rows", None)
    monkeypatch.setattr(attending, "_sdpa", None)


def check(q, k, v, bias=None):
    tolerance = 2e-6 if q.dtype == torch.float32 else 1e-2
    out, lse = attend(q, k, v, 0.4, bias=bias)
    want, want_lse = softmax(q, k, v, 0.4, bias)
    assert (out.dtype, lse.dtype) == (q.dtype, torch.float32)
    assert_close(out.double(), want, atol=tolerance, rtol=tolerance)
    assert_close(lse.double(), want_lse, atol=2e-6, rtol=2e-6)
    if bias is None:
        assert torch.equal(attend_alone(q, k, v, 0.4), out)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("heads", [(1, 1), (2, 1), (3, 1), (4, 1), (7, 1), (2, 4)], ids=str)
def test_equals_the_softmax(dtype, heads):
    g, t = heads
    keys, values = normal(B, HKV, N, D, seed=1, dtype=dtype), normal(B, HKV, N, DV, seed=2, dtype=dtype)
    check(normal(B, HKV * g, t, D, dtype=dtype), keys, values)


@pytest.mark.parametrize("n", [1, 31, 32, 33, 64])
def test_blocks_end_where_the_entries_do(n):
    check(normal(B, HKV * 3, 1, D), normal(B, HKV, n, D, seed=1), normal(B, HKV, n, DV, seed=2))


def test_bias_adds_to_logits_and_hides():
    bias = normal(B, HKV, N, seed=3).masked_fill(normal(B, HKV, N, seed=4) > 0.5, -math.inf)
    bias[1, 0] = -math.inf
    q, k, v = normal(B, 4, 1, D), normal(B, HKV, N, D, seed=1), normal(B, HKV, N, DV, seed=2)
    check(q, k, v, bias)
    check(q, k, v, bias[:, 1:])  # broadcast over heads
    out, lse = attend(q, k, v, 0.4, bias=bias)
    assert not out[1, :2].any() and bool(lse[1, :2].isneginf().all())


def test_logits_far_apart_stay_finite():
    k = normal(1, 1, 64, D, seed=1)
    k[:, :, 40] *= 400
    check(normal(1, 1, 1, D) * 50, k, normal(1, 1, 64, DV, seed=2))


def test_spare_room_is_passed_over_and_nothing_is_copied(monkeypatch):
    part = DensePart(normal(B, HKV, N, D, seed=1), normal(B, HKV, N, DV, seed=2), {})
    for x in part.buffers():
        x[:, :, N:] = math.nan
    seen = []
    run = compiled.attend_runs
    monkeypatch.setattr(compiled, "attend_runs", lambda *given: seen.append(given) or run(*given))
    check(normal(B, 4, 1, D), part.keys, part.values)
    check(normal(B, 4, 1, D), part.keys, part.values, normal(B, HKV, N, seed=3))
    assert {x.data_ptr() for x in part.buffers()} == {x.data_ptr() for x in seen[0][1:3]}


def test_other_layouts():
    """A slice of a larger tensor; one head whose entries all heads share; where no run of rows exists, torch's kernel."""
    q, k, v = normal(B, 4, 1, D), normal(B, 3, N, D, seed=1), normal(B, 3, N, DV, seed=2)
    check(q, k[:, 1:, 5:90], v[:, 1:, 5:90])
    check(q, k[:, :1].expand(B, 2, N, D), v[:, :1].expand(B, 2, N, DV))
    by_token = k.transpose(1, 2).contiguous().transpose(1, 2)
    for keys, values in ((by_token, v), (k, by_token), (k[..., :8], v), (k, v[:, :, : N - 1].contiguous())):
        assert not compiled.serves(q[..., : keys.shape[-1]], keys, values)


def test_what_the_loop_does_not_serve():
    q, k, v = normal(1, 4, 1, D), normal(1, 2, N, D, seed=1), normal(1, 2, N, D, seed=2)
    assert compiled.serves(q, k, v)
    assert not compiled.serves(q, k.bfloat16(), v.bfloat16()) and not compiled.serves(q.half(), k.half(), v.half())
    assert not compiled.serves(normal(1, 4, 17, D), k, v)
    assert not compiled.serves(q[..., :12], k[..., :12].contiguous(), v)
    for learned in range(3):
        given = [x.clone().requires_grad_(i == learned) for i, x in enumerate((q, k, v))]
        assert not compiled.serves(*given)
        with torch.no_grad():
            assert compiled.serves(*given)


def test_few_entries_are_left_to_torch(monkeypatch):
    """numba is not loaded for them."""
    monkeypatch.undo()
    q, k, v = normal(1, 4, 1, D), normal(1, 2, N, D, seed=1), normal(1, 2, N, D, seed=2)
    assert not compiled.serves(q, k, v)
    longer = compiled.DENSE // (4 * 2 * D)
    k, v = normal(1, 2, longer, D, seed=1), normal(1, 2, longer, D, seed=2)
    assert compiled.serves(q, k, v)
    assert not compiled.serves(q, k[:, :, :-1], v[:, :, :-1])


def test_a_new_kernel_is_compiled_in_one_thread(monkeypatch):
    """Its first share runs before any other thread is given one; later calls share from the beginning."""
    ran = []

    class Kernel:
        signatures = []

        def __call__(self, share, *arguments):
            ran.append((share, threading.current_thread() is threading.main_thread()))
            self.signatures = ["known"]

    class Loops:
        @staticmethod
        def combine(*arguments):
            pass

    class Pool:
        @staticmethod
        def submit(work, share):
            done = Future()
            thread = threading.Thread(target=lambda: done.set_result(work(share)))
            thread.start()
            thread.join()
            return done

    monkeypatch.setattr(compiled, "loops", lambda: Loops)
    monkeypatch.setattr(compiled, "_pool", lambda: Pool)
    kernel = Kernel()
    for first in (0, 1):
        ran.clear()
        compiled.launch(kernel, [], 2, 1, 8, 1 << 20)
        assert ran[0] == (first, first == 0) and sorted(ran) == [(0, True), (1, False), (2, False)]
