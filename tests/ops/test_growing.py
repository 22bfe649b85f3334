"""Tensors that grow: what is read, what is copied, what a mapped copy shares."""

import torch

from laconic.ops.growing import Growing


def test_appended_blocks_are_read_in_order():
    x, y = torch.randn(2, 3, 5, 4), torch.arange(12).view(2, 3, 2)
    grown = Growing({"x": x.clone(), "y": y.clone()})
    blocks = [torch.randn(2, 3, n, 4) for n in (1, 7, 40)]
    for block in blocks:
        grown.append({"x": block})
    assert torch.equal(grown["x"], torch.cat([x, *blocks], 2)) and torch.equal(grown["y"], y)
    assert grown.nbytes == 2 * 3 * 53 * 4 * 4 + 12 * 8
    assert list(grown) == ["x", "y"] and len(grown) == 2 and "z" not in grown


def test_growth_is_amortised():
    grown, copies = Growing({"x": torch.zeros(1, 1, 160, 8)}), 0
    for i in range(200):
        before = grown["x"].data_ptr()
        grown.append({"x": torch.full((1, 1, 1, 8), float(i))})
        copies += before != grown["x"].data_ptr()
    assert copies <= 200 / 10 + 1
    assert sum(x.nbytes for x in grown.buffers()) <= 1.07 * grown.nbytes + 4 * 8 * 4
    assert torch.equal(grown["x"][0, 0, 160:, 0], torch.arange(200.0))


def test_a_mapped_copy_leaves_the_original_alone():
    grown = Growing({"x": torch.arange(6.0).view(2, 1, 3)})
    grown.append({"x": torch.full((2, 1, 2), 9.0)})
    rows = grown.mapped(lambda x: x[[1, 1]])
    assert rows["x"].tolist() == [[[3, 4, 5, 9, 9]]] * 2
    rows.append({"x": torch.zeros(2, 1, 50)})
    assert grown["x"].shape == (2, 1, 5)
    rows.add("y", torch.ones(2, 1, 1))
    assert "y" not in grown and rows["y"].shape == (2, 1, 1)
