"""The merging tower by itself: proportional attention, and what it refuses."""

from functools import partial

import pytest
import torch
from helpers.encoder_by_hand import sharp_vlm
from helpers.vision_tools import laconic_hooks

from laconic.methods.encoder.tome import pairs
from laconic.stream.tower import MergingTower

PATCH, SIDE = 8, 12


def features(model, pixels, steps=None, proportional=True):
    """Features after the projector with merges of `steps`, and the merged token of every patch."""
    seen = []
    tower = MergingTower(
        model,
        lambda n, layers: [partial(pairs, r=r) if r else None for r in steps],
        proportional,
        lambda x, source: seen.append(source),
    )
    handles = tower.install() if steps else []
    try:
        return torch.stack(list(model.model.get_image_features(pixels).pooler_output)), seen
    finally:
        for handle in handles:
            handle.remove()


def twins():
    """An image whose neighbours 2 i and 2 i + 1 are equal."""
    torch.manual_seed(0)
    half = torch.randn(1, 3, SIDE, SIDE // 2, PATCH, PATCH).repeat_interleave(2, 3)
    return half.permute(0, 1, 2, 4, 3, 5).reshape(1, 3, SIDE * PATCH, SIDE * PATCH)


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_proportional_attention_equals_attention_over_the_duplicates(implementation):
    """Must show 6: with equal patches merged and sizes in the logits nothing changes; without sizes it does."""
    model = sharp_vlm()
    model.model.vision_tower.set_attn_implementation(implementation)
    model.model.vision_tower.embeddings.position_embedding.weight.zero_()
    want, _ = features(model, twins())
    got, seen = features(model, twins(), [72, 0, 0, 0])
    assert torch.equal(seen[0][0, ::2], seen[0][0, 1::2]) and len(seen[0].unique()) == 72
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)
    plain, _ = features(model, twins(), [72, 0, 0, 0], proportional=False)
    assert (plain - want).abs().max() > 1e-3, "CLS counts for two patches then"
    assert laconic_hooks(model) == []
