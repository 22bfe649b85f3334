"""Qwen2.5-VL: the encoder's window order, and time in M-RoPE."""

import pytest
import torch
import transformers
from helpers.vision_zoo import CASES, VIDEO

from laconic.families.vision.qwen2_5_vl import QWEN2_5_VL

CASE = CASES["qwen2_5_vl"]


@pytest.mark.parametrize("grid", [(3, 4), (4, 4), (5, 5), (1, 7), (8, 2)])
def test_window_order_is_the_encoders(vlm, grid):
    """The first layer's input, by a hook, against the patch embeddings of each cell."""
    model = vlm("qwen2_5_vl")
    visual, config = model.model.visual, model.config.vision_config
    grids = torch.tensor([[2, 2 * grid[0], 2 * grid[1]]])
    count = int(grids.prod())
    flat = torch.randn(count, 3 * 2 * 4 * 4, generator=torch.Generator().manual_seed(0))
    caught = {}
    handles = [
        visual.patch_embed.register_forward_hook(lambda m, a, out: caught.update(before=out)),
        visual.blocks[0].register_forward_pre_hook(lambda m, a: caught.update(after=a[0])),
    ]
    visual(flat, grid_thw=grids)
    for handle in handles:
        handle.remove()
    order = QWEN2_5_VL.order(config, 2, *grid)
    before, after = (caught[k].view(-1, 4, 24) for k in ("before", "after"))
    assert sorted(order.flatten().tolist()) == list(range(count // 4))
    for block, where in enumerate(order.flatten().tolist()):
        assert torch.equal(after[where], before[block])


@pytest.mark.skipif(transformers.__version__ < "5.19", reason="older transformers round the seconds of a grid step down")
def test_time_in_positions(vlm, seen):
    """Temporal positions step by tokens_per_second * seconds per grid step; height and width restart in every frame."""
    model = vlm("qwen2_5_vl")
    clip = CASE.image(1, grid=(4, 6), video=3)
    inputs = CASE.inputs([[clip], [CASE.image(2)]]) | {"second_per_grid_ts": torch.tensor([0.5])}
    visual = seen(model, inputs)
    step = int(model.config.vision_config.tokens_per_second * 0.5)
    spans = visual.of(0, 0, "video")
    start = int(visual.positions[0, 0, spans[0].start])
    assert int(visual.positions[0, 0, spans[0].start - 1]) == start - 1
    for span in spans:
        for r in range(2):
            for c in range(3):
                token = span.cells[r, c]
                assert visual.positions[:, 0, token].tolist() == [start + step * span.frame, start + r, start + c]
    assert (inputs["input_ids"][0] == VIDEO).sum() == 18
