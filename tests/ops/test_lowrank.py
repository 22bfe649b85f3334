"""Power iteration against the published loop and against the singular value decomposition."""

import pytest
import torch

from laconic.ops.lowrank import power_iteration


def matrices(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def slow_power_iteration(x, rank, loops, seed):
    """One matrix [n, d]: the loop as published; Gram-Schmidt makes directions orthonormal."""

    def orthonormal(y):
        done = []
        for column in y.T:
            for other in done:
                column = column - (column @ other) * other
            done.append(column / column.norm())
        return torch.stack(done, 1)

    p = torch.rand(x.shape[1], rank, generator=torch.Generator().manual_seed(seed)).double()
    for i in range(loops):
        if i == loops - 1:
            p = orthonormal(p)
        q = x @ p
        if i == loops - 1:
            q = orthonormal(q)
        p = x.T @ q
    return p, q


@pytest.mark.parametrize(("rank", "loops"), [(1, 1), (2, 3), (4, 2)])
def test_every_matrix_of_a_batch_follows_the_published_loop(rank, loops):
    x = matrices(2, 3, 20, 8)
    p, q = power_iteration(x, rank, loops=loops, seed=5)
    assert p.shape == (2, 3, 8, rank) and q.shape == (2, 3, 20, rank)
    for b in range(2):
        for h in range(3):
            slow_p, slow_q = slow_power_iteration(x[b, h].double(), rank, loops, 5)
            want = slow_q @ slow_p.T  # the factors themselves may differ in sign
            torch.testing.assert_close((q[b, h] @ p[b, h].T).double(), want, atol=1e-4, rtol=1e-4)


def test_three_rounds_come_within_five_percent_of_the_best_approximation():
    x = matrices(1, 2, 256, 64) * 0.3 + matrices(1, 2, 256, 3, seed=1) @ matrices(1, 2, 3, 64, seed=2)
    p, q = power_iteration(x, 4)
    for h in range(2):
        best = torch.linalg.svdvals(x[0, h])[4:].norm()
        assert best <= (x[0, h] - q[0, h] @ p[0, h].T).norm() * (1 + 1e-5)
        assert (x[0, h] - q[0, h] @ p[0, h].T).norm() <= 1.05 * best


@pytest.mark.parametrize("shape", [(20, 8), (8, 20)])
def test_all_directions_give_the_matrix_itself(shape):
    x = matrices(2, 2, *shape)
    p, q = power_iteration(x, 8)
    torch.testing.assert_close(q @ p.transpose(-1, -2), x, atol=2e-5, rtol=2e-5)


def test_the_error_falls_with_the_rank():
    x = matrices(40, 16)
    errors = []
    for rank in range(17):
        p, q = power_iteration(x, rank, loops=4)
        errors.append(float((x - q @ p.T).norm()))
    assert errors == sorted(errors, reverse=True) and errors[16] < 1e-4 < errors[15]


def test_results_repeat_and_do_not_depend_on_neighbours():
    x = matrices(3, 2, 24, 8)
    p, q = power_iteration(x, 2, seed=3)
    again, alone = power_iteration(x, 2, seed=3), power_iteration(x[1:2], 2, seed=3)
    assert torch.equal(p, again[0]) and torch.equal(q, again[1])
    torch.testing.assert_close(q[1:2] @ p[1:2].mT, alone[1] @ alone[0].mT, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(q @ p.mT, (lambda f: f[1] @ f[0].mT)(power_iteration(x, 2, seed=4, loops=1)), atol=1e-3)


def test_nothing_to_approximate_gives_nothing():
    p, q = power_iteration(torch.zeros(1, 2, 16, 8), 4)
    assert torch.equal(q @ p.mT, torch.zeros(1, 2, 16, 8))


@pytest.mark.parametrize(("rank", "loops", "names"), [(9, 3, "rank=9"), (-1, 3, "rank=-1"), (2, 0, "loops=0")])
def test_impossible_parameters_are_refused(rank, loops, names):
    with pytest.raises(ValueError, match=names):
        power_iteration(matrices(20, 8), rank, loops=loops)
