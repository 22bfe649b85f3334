"""Deep Forcing from an artifact: films, training, and where it does not belong."""

import numpy as np
import pytest
import torch

import laconic
from laconic.errors import SessionError
from laconic.fit import Trainer
from laconic.methods.codecs.deep_forcing.fit import DeepForcingFit
from laconic.tasks.scenes.small import small_clip
from laconic.tasks.task import EVALUATION_SEED

TINY = {"size": 8, "patch": 4, "width": 32, "depth": 2, "heads": 2, "frames": 4, "batch_size": 2}


@pytest.fixture(scope="module")
def artifact(tmp_path_factory):
    path = tmp_path_factory.mktemp("d") / "tiny.safetensors"
    Trainer(DeepForcingFit(**TINY, steps=2), None, None).run().save(path)
    return str(path)


def test_films_follow_the_seed_and_the_policy(artifact):
    made = laconic.DeepForcing(artifact=artifact, steps=2)
    film = made.film(12, seed=1)
    assert len(film) == 12 and film[0].size == (8, 8)
    again, other = made.film(12, seed=1), laconic.DeepForcing(artifact=artifact, steps=2, score="random").film(12, seed=1)
    assert all(np.array_equal(np.asarray(a), np.asarray(b)) for a, b in zip(film, again, strict=True))
    assert all(np.array_equal(np.asarray(a), np.asarray(b)) for a, b in zip(film[:8], other[:8], strict=True))


def test_what_makes_no_sense_is_refused(artifact, llama):
    with pytest.raises(ValueError, match="frames=0 must be at least 1"):
        laconic.DeepForcing(artifact=artifact).film(0)
    with pytest.raises(ValueError, match=r"sink \+ recent must be at most the budget"):
        laconic.DeepForcing(sink=7)
    with pytest.raises(SessionError, match="deep_forcing rolls the cache of its own video generator"):
        laconic.compress(llama, laconic.DeepForcing()).__enter__()


def test_clips_are_those_of_training_and_shapes_stay_inside():
    fit = DeepForcingFit(**TINY, seed=999_999)
    fit.build(None, None)
    batch = fit.batch(10**6)
    assert batch.shape == (2, 4, 3, 8, 8) and torch.equal(batch, fit.batch(10**6))
    assert (999_999 * 7919 + 10**6) * 2 % (EVALUATION_SEED - 2) < EVALUATION_SEED - 2
    film = small_clip(3, 40)
    assert film.shape == (40, 32, 32, 3) and np.array_equal(film[:8], small_clip(3, 8))
    moving = (np.abs(film[1:].astype(int) - film[:-1]).max((1, 2, 3)) > 20).mean()
    assert moving > 0.9


def test_a_few_steps_lower_the_loss():
    fit = DeepForcingFit(**TINY, steps=30, lr=3e-3)
    lines = []
    Trainer(fit, None, None, log=lines.append).run()
    torch.manual_seed(0)
    after = sum(float(next(iter(fit.loss(fit.batch(100 + i)))).detach()) for i in range(4))
    torch.manual_seed(0)
    fit.build(None, None)
    torch.manual_seed(0)
    before = sum(float(next(iter(fit.loss(fit.batch(100 + i)))).detach()) for i in range(4))
    assert after < 0.8 * before
