"""E-MMDiT drawn from an artifact, trained on captions, and refused where it does not belong."""

import numpy as np
import pytest
import torch

import laconic
from laconic.errors import ArtifactError, SessionError
from laconic.fit import Trainer
from laconic.methods.codecs.e_mmdit.fit import EMMDiTFit
from laconic.prompts.text import PromptError
from laconic.tasks.scenes.captions import caption
from laconic.tasks.scenes.small import small_scene
from laconic.tasks.task import EVALUATION_SEED

TINY = {"size": 16, "width": 32, "heads": 2, "groups": (1, 1, 1), "text_width": 8, "slices": 2, "batch_size": 4}
NARROW = {**TINY, "patch": 2}


@pytest.fixture(scope="module")
def artifact(tmp_path_factory):
    path = tmp_path_factory.mktemp("e") / "tiny.safetensors"
    Trainer(EMMDiTFit(**NARROW, steps=2), None, None).run().save(path)
    return str(path)


def test_a_prompt_becomes_an_image_that_follows_the_seed(artifact):
    made = laconic.EMMDiT(artifact=artifact, steps=3)
    image = made.generate("red circle top left", seed=1)
    assert image.size == (16, 16)
    assert np.array_equal(np.asarray(image), np.asarray(made.generate("red circle top left", seed=1)))
    assert not np.array_equal(np.asarray(image), np.asarray(made.generate("red circle top left", seed=2)))
    assert not np.array_equal(np.asarray(image), np.asarray(made.generate("blue square", seed=1)))


def test_what_cannot_be_read_or_set_is_refused(artifact, llama):
    made = laconic.EMMDiT(artifact=artifact)
    with pytest.raises(PromptError, match="'unicorn' is none of its words"):
        made.generate("red unicorn")
    with pytest.raises(PromptError, match="17 words are more than 16"):
        made.generate("red " * 17)
    with pytest.raises(ValueError, match="steps=0 must be a whole number of at least 1"):
        laconic.EMMDiT(steps=0)
    with pytest.raises(ArtifactError, match="is for razorattention, not for e_mmdit"):
        laconic.EMMDiT(artifact="razorattention-testbed-lm").generate("red circle")
    with pytest.raises(SessionError, match="e_mmdit draws an image by itself and changes no model"):
        laconic.compress(llama, made).__enter__()


def test_batches_are_captions_and_images_of_training_alone():
    fit = EMMDiTFit(**NARROW, seed=999_999, dropped=0.5)
    fit.build(None, None)
    images, ids = fit.batch(10**6)
    assert images.shape == (4, 3, 16, 16) and ids.shape == (4, 16)
    captions = [caption(small_scene(7 + i, 16, most=1)) for i in range(4)]
    words = dict(enumerate(fit.drawing.words, 1))
    assert [" ".join(words[n] for n in row if n) for row in fit.examples(7, 4)[1].tolist()] == captions
    left_out = sum(not row.any() for step in range(30) for row in fit.batch(step)[1])
    assert 30 < left_out < 90


@pytest.mark.slow
def test_8_two_paths_lose_no_more_than_one_and_subregions_little():
    """The same blocks and steps, three middles: 16 + 4 tokens, 16 tokens, and 16 + 4 under full attention."""
    losses = {}
    for name, more in (("two", {}), ("one", {"ratios": (2,)}), ("full", {"slices": 1})):
        fit = EMMDiTFit(width=48, heads=4, groups=(1, 2, 1), text_width=16, batch_size=16, steps=400, size=32, **more)
        Trainer(fit, None, None).run()
        with torch.no_grad(), torch.random.fork_rng():
            torch.manual_seed(0)
            images, ids = fit.examples(EVALUATION_SEED, 256)
            losses[name] = np.mean([float(fit.drawing.loss(images, ids)) for _ in range(8)])
    assert losses["two"] <= losses["one"] * 1.01
    assert losses["two"] <= losses["full"] * 1.1
