"""Training One-D-Piece: seeds, stages, and what the tail drop is for."""

import pytest
import torch

from laconic.artifact import Artifact
from laconic.codec.images import pixels, psnr
from laconic.fit import Trainer
from laconic.methods.codecs.one_d_piece.fit import OneDPieceFit
from laconic.methods.codecs.one_d_piece.network import OneDPieceNet, Sizes
from laconic.tasks.scenes.small import small_scenes
from laconic.tasks.task import EVALUATION_SEED

SIZES = {"size": 8, "patch": 4, "tokens": 4, "width": 16, "depth": 1, "heads": 2, "levels": (4, 4, 4)}
TINY = {**SIZES, "batch_size": 4, "steps": 3}


def test_batches_are_small_scenes_and_never_those_of_evaluation():
    for seed, step in ((0, 0), (0, 10**6), (999_999, 12345)):
        fit = OneDPieceFit(**TINY, seed=seed)
        fit.build(None, None)
        batch = fit.batch(step)
        assert batch.shape == (4, 3, 8, 8) and torch.equal(batch, fit.batch(step))
        first = (seed * 7919 + step) * 4 % (EVALUATION_SEED - 4)
        assert torch.equal(batch, pixels(small_scenes(first, 4, 8)))


def test_stage_2_leaves_encoder_and_codes_as_they_are_bit_for_bit(tmp_path):
    Trainer(OneDPieceFit(**TINY), None, None).run().save(tmp_path / "one.safetensors")
    first = Artifact.load(tmp_path / "one.safetensors")
    second = Trainer(OneDPieceFit(**TINY, start=str(tmp_path / "one.safetensors"), lr=0.1), None, None).run()
    assert second.data == first.data and second.fingerprint is None and second.model == ""
    drawn = ("write", "decoder", "head", "drawn_", "code_place", "mask")
    for name, tensor in first.tensors.items():
        same = torch.equal(tensor, second.tensors[name])
        assert same != name.startswith(drawn), name
    nets = [a.restore(OneDPieceNet(Sizes.of(a.data))) for a in (first, second)]
    x = pixels(small_scenes(EVALUATION_SEED, 8, 8))
    assert torch.equal(nets[0].quantise(x).indices, nets[1].quantise(x).indices)
    assert not torch.equal(nets[0](x)[0], nets[1](x)[0])


@pytest.mark.slow
def test_5_with_the_tail_drop_the_first_tokens_hold_the_most():
    """16 pixels, 8 tokens: a quarter of the tokens is at least 2 dB better than without the drop, one token 5 dB."""
    x, curves = pixels(small_scenes(EVALUATION_SEED, 256, 16)), {}
    for drop in (True, False):
        fit = OneDPieceFit(
            size=16, patch=4, tokens=8, width=64, depth=2, heads=4, levels=(8, 8, 8), batch_size=32, steps=700, drop=drop
        )
        Trainer(fit, None, None).run()
        with torch.no_grad():
            curves[drop] = [float(psnr(fit.net(x, k)[0], x).mean()) for k in range(1, 9)]
    assert curves[True][1] > curves[False][1] + 2 and curves[True][0] > curves[False][0] + 5
    assert all(b > a - 0.1 for a, b in zip(curves[True], curves[True][1:], strict=False))
