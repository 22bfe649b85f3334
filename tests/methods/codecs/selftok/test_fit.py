"""Training Selftok: seeds, resuming, both stages, and what a few steps show."""

import pytest
import torch
from helpers.selftok_tools import TINY

from laconic.artifact import Artifact
from laconic.codec.images import pixels
from laconic.errors import ArtifactError
from laconic.fit import Trainer
from laconic.methods.codecs.selftok.fit import SelfTokFit
from laconic.methods.codecs.selftok.network import SelfTokNet, Sizes
from laconic.tasks.scenes.small import small_scenes
from laconic.tasks.task import EVALUATION_SEED

SMALL = {**TINY, "batch_size": 4, "steps": 3}


def net_of(artifact):
    return artifact.restore(SelfTokNet(Sizes.of(artifact.data)))


def test_batches_are_small_scenes_and_never_those_of_evaluation():
    for seed, step in ((0, 0), (0, 10**6), (999_999, 12345)):
        fit = SelfTokFit(**SMALL, seed=seed)
        fit.build(None, None)
        batch = fit.batch(step)
        first = (seed * 7919 + step) * 4 % (EVALUATION_SEED - 4)
        assert torch.equal(batch, pixels(small_scenes(first, 4, 8))) and first + 4 <= EVALUATION_SEED


@pytest.mark.parametrize("levels", [(4, 4, 4), ()])
def test_a_training_that_stops_goes_on_as_if_it_had_not(tmp_path, levels):
    settings = {**SMALL, "levels": levels, "codes": 8, "code_width": 4}
    whole = Trainer(SelfTokFit(**settings), None, None).run()
    Trainer(SelfTokFit(**{**settings, "steps": 2}, warmup=0.5), None, None, tmp_path).run()
    with pytest.raises(ArtifactError, match="other settings"):
        Trainer(SelfTokFit(**{**settings, "lr": 1.0}), None, None, tmp_path).run(resume=True)

    class Even(SelfTokFit):
        def rate(self, step):
            return 1.0

    whole = Trainer(Even(**settings), None, None).run()
    Trainer(Even(**{**settings, "steps": 2}), None, None, tmp_path / "b").run()
    resumed = Trainer(Even(**settings), None, None, tmp_path / "b").run(resume=True)
    assert all(torch.equal(x, resumed.tensors[name]) for name, x in whole.tensors.items())


@pytest.mark.parametrize("levels", [(4, 4, 4), ()])
def test_stage_2_leaves_codes_and_decoder_as_they_are_bit_for_bit(tmp_path, levels):
    settings = {**SMALL, "levels": levels, "codes": 8, "code_width": 4}
    Trainer(SelfTokFit(**settings), None, None).run().save(tmp_path / "one.safetensors")
    first = Artifact.load(tmp_path / "one.safetensors")
    second = Trainer(SelfTokFit(**settings, start=str(tmp_path / "one.safetensors")), None, None).run()
    assert second.data == {**first.data, "renderer": True}
    assert all(torch.equal(x, second.tensors[name]) for name, x in first.tensors.items())
    x = pixels(small_scenes(EVALUATION_SEED, 8, 8))
    with torch.no_grad():
        assert torch.equal(net_of(first).quantise(x).indices, net_of(second).quantise(x).indices)
    fit = SelfTokFit(**settings, start=str(tmp_path / "one.safetensors"))
    begun = {name: x for name, x in fit.build(None, None).renderer.state_dict().items() if name != "mask"}
    assert begun and all(torch.equal(x, first.tensors[f"decoder.{name}"].float()) for name, x in begun.items())
    changed = [name for name in first.tensors if name.startswith("decoder.blocks.0.image.qkv")]
    assert all(not torch.equal(first.tensors[n], second.tensors[n.replace("decoder", "renderer")]) for n in changed)


def test_a_few_steps_lower_the_loss():
    fit = SelfTokFit(**{**SMALL, "steps": 60, "batch_size": 16, "lr": 3e-3})
    lines = []
    fit.log_every = 10
    Trainer(fit, None, None, log=lines.append).run()
    losses = [float(line.split()[3]) for line in lines]
    assert losses[-1] < 0.8 * losses[0]
