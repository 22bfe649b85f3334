"""VTW's search for K: divergences against layers run by hand, and the first within eta."""

import pytest
import torch
from helpers.slow_attention import stay
from helpers.vision_exact import run
from helpers.vision_tools import inputs

from laconic import ArtifactError
from laconic.fit import Trainer
from laconic.methods.tokens.vtw.fit import VTWFit, divergences, search
from laconic.methods.tokens.vtw.method import VTW
from laconic.testbed.vlm_model import build_processor, build_tokenizer


def test_divergences_by_hand(vlm):
    """Two prompts of different length in one batch, one more in another."""
    batches, expected = [inputs([(3, 9), (8, 2)], seed=1), inputs([(2, 5)], seed=2)], dict.fromkeys(range(1, 8), 0.0)
    for given in batches:
        for b, mask in enumerate(given["attention_mask"]):
            own = {"input_ids": given["input_ids"][b : b + 1, mask == 1], "pixel_values": given["pixel_values"][b : b + 1]}
            full = run(vlm, own, lambda i, h, v, p: (h, v, p), 1)[0][0].softmax(-1)
            for k in expected:
                removed = run(vlm, own, lambda i, h, v, p, k=k: stay(h, v, p, []) if i == k else (h, v, p), 1)[0][0].softmax(
                    -1
                )
                expected[k] += float((removed * (removed / full).log()).sum()) / 3
    found = divergences(vlm, batches)
    assert list(found) == list(range(1, 8))
    for k, kl in found.items():
        assert kl == pytest.approx(expected[k], rel=1e-3, abs=1e-6)
    assert min(found.values()) > 0 and list(divergences(vlm, batches[1:], 6)) == [6, 7]


def test_the_first_layer_within_eta():
    curve = {5: 0.2, 6: 0.003, 7: 0.01, 8: 0.001}
    assert search(curve, 0.003) == 6 and search(curve, 0.002) == 8 and search(curve, 0.0001) is None


def test_an_artifact_sets_the_layer(vlm, tmp_path):
    processor, lines = build_processor(build_tokenizer()), []
    options = {"samples": 4, "batch_size": 2}
    made = Trainer(VTWFit(eta=100.0, **options), vlm, processor, log=lines.append).run()
    assert made.data["layer"] == 1 and len(made.data["divergences"]) == 7 and "before layer 1" in lines[-1]
    made.save(tmp_path / "vtw.safetensors")
    method = VTW(artifact=str(tmp_path / "vtw.safetensors"))
    method.attach(vlm)
    assert list(method.cuts(8)) == [1]
    with pytest.raises(ArtifactError, match="gave nothing"):
        Trainer(VTWFit(eta=1e-6, **options), vlm, processor).run()
    assert torch.is_grad_enabled()
