"""Training DiCoDe: seeds, resuming, both stages, and a decode that follows the tokens."""

import pytest
import torch
from helpers.dicode_tools import TINY

from laconic.artifact import Artifact
from laconic.codec.images import psnr
from laconic.errors import ArtifactError
from laconic.fit import Trainer
from laconic.methods.codecs.dicode.fit import DiCoDeFit
from laconic.tasks.scenes.flights import Flight
from laconic.tasks.task import EVALUATION_SEED

SMALL = {**TINY, "batch_size": 2, "steps": 3}


class Even(DiCoDeFit):
    """A schedule that does not depend on the number of steps, so that a shorter training is the first part of a longer."""

    def rate(self, step):
        return 1.0


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    path = tmp_path_factory.mktemp("d") / "one.safetensors"
    Trainer(DiCoDeFit(**SMALL), None, None).run().save(path)
    return str(path)


@pytest.mark.parametrize("second", [False, True])
def test_a_training_that_stops_goes_on_as_if_it_had_not(tmp_path, tokenizer, second):
    settings = {**SMALL, "start": tokenizer if second else None}
    whole = Trainer(Even(**settings), None, None).run()
    Trainer(Even(**{**settings, "steps": 2}), None, None, tmp_path).run()
    with pytest.raises(ArtifactError, match="other settings"):
        Trainer(Even(**{**settings, "lr": 1.0}), None, None, tmp_path).run(resume=True)
    resumed = Trainer(Even(**settings), None, None, tmp_path).run(resume=True)
    assert all(torch.equal(x, resumed.tensors[name]) for name, x in whole.tensors.items())


def test_stage_2_leaves_the_tokenizer_as_it_is_bit_for_bit(tokenizer):
    first = Artifact.load(tokenizer)
    second = Trainer(DiCoDeFit(**SMALL, start=tokenizer), None, None).run()
    assert all(torch.equal(x, second.tensors[name]) for name, x in first.tensors.items())
    assert second.data["sizes"] == {**first.data["sizes"], "words": 16} and "language.read.0.weight" in second.tensors


def test_stage_2_may_have_another_language_model_than_the_first_would(tokenizer):
    fit = DiCoDeFit(**SMALL | {"components": 3, "lm_width": 8, "width": 32}, start=tokenizer)
    net = fit.build(None, None)
    assert (net.sizes.components, net.sizes.lm_width, net.language.components) == (3, 8, 3)
    assert net.sizes.width == TINY["width"]  # the tokenizer's own


def test_batches_are_films_of_training_and_texts_leave_out_directions(tokenizer):
    fit = DiCoDeFit(**SMALL, seed=999_999)
    fit.build(None, None)
    batch = fit.batch(10**6)
    first = (999_999 * 7919 + 10**6) * 2 % (EVALUATION_SEED - 2)
    assert batch.shape == (2, 4, 3, 8, 8) and torch.equal(batch, fit.filmed([Flight(first + i, 8) for i in range(2)]))
    told = DiCoDeFit(**SMALL, start=tokenizer)
    told.build(None, None)
    ids, frames = told.batch(5)
    assert ids.shape == (2, 4) and frames.shape == (2, 3, 3, 8, 8) and torch.equal(frames[:, 0], frames[:, 2])
    flights = [Flight(10 + i, 8) for i in range(2)]
    assert torch.equal(frames, told.told(flights, 0.5)[1])
    assert bool(told.told(flights, 0.0)[0][:, 2].all()) and not told.told(flights, 1.0)[0][:, 2].any()
    said = torch.cat([told.batch(step)[0] for step in range(60)])
    assert 0.3 < float((said[:, 2] == 0).float().mean()) < 0.7 and not said[:, 3].any()
    with pytest.raises(ValueError, match="clips=4 have 5 borders, more than borders=4"):
        DiCoDeFit(**SMALL, clips=4)


@pytest.mark.slow
def test_7_the_decode_follows_the_tokens_and_not_the_noise():
    """Tokens are exchanged between clips: what is decoded is near the clip of the tokens, whatever the noise began with."""
    settings = {**TINY, "frames": 2, "width": 32, "batch_size": 16, "steps": 200, "lr": 4e-3}
    fit = DiCoDeFit(**settings)
    Trainer(fit, None, None).run()
    clips = fit.filmed([Flight(EVALUATION_SEED + i, 8) for i in range(32)])
    with torch.no_grad():
        tokens = fit.net.tokens(clips)
        noise = fit.net.noise(32, torch.Generator().manual_seed(0))
        swapped = fit.net.decode(tokens.roll(1, 0), noise, 10, eta=0.0)
    own, other = psnr(swapped, clips.roll(1, 0)), psnr(swapped, clips)
    assert float((own > other).float().mean()) > 0.75 and float(own.mean()) > float(other.mean()) + 0.5
