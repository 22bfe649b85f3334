"""Training One-D-Piece: seeds, stages, and what the tail drop is for."""

import torch

from laconic.artifact import Artifact
from laconic.codec.images import pixels
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
