"""Training of CaCoVID's policy. "line n" is what the card must show."""

import random

import pytest
import torch
from helpers.visual_fit import check_only_the_network_learns, network_of, processor

from laconic.methods.tokens.cacovid.fit import CaCoVIDFit

TINY = {"images": 1, "questions": 2, "sets": 4, "lr": 1e-2}


@pytest.fixture(scope="module")
def reader():
    return processor()


def test_rewards_are_those_of_the_model_that_sees_the_set_alone(vlm, reader):
    fit = CaCoVIDFit(**TINY)
    network_of(fit, vlm, reader)
    asked = fit.asked(0)
    words = fit.words(asked)
    words = words.masked_scatter(asked.image[..., None], asked.features.repeat_interleave(len(words), 0))
    kept = torch.rand(len(words), 3, 144).argsort(-1) < 40
    for b in range(len(words)):
        real = asked.mask[b] == 1
        own = words[b][real]
        at = asked.image[b][real].nonzero()[:, 0]
        stays = torch.ones(len(own), dtype=torch.bool)
        stays[at[~kept[b, 1]]] = False
        place = torch.arange(len(own))[None, stays]
        said = vlm(inputs_embeds=own[stays][None], position_ids=place).logits[0].argmax(-1)
        n = int((asked.labels[b] != -100).sum())
        asked.labels[b, -n:] = said[-n - 1 : -1]  # what this model says with set 1 is called right
    assert bool((fit.rewards(asked, words, kept)[:, 1] == 1).all())
    asked.labels[:, -1] = (asked.labels[:, -1] + 1) % 400
    assert not fit.rewards(asked, words, kept)[:, 1].any()


@pytest.mark.parametrize("grouped", [True, False])
def test_sets_are_of_one_size_and_the_model_gets_no_gradient(vlm, reader, grouped, monkeypatch):
    """line 7"""
    fit, tried = CaCoVIDFit(**TINY, grouped=grouped, rates=(0.06,)), []
    network_of(fit, vlm, reader).requires_grad_(True)
    original = CaCoVIDFit.rewards
    drawn = torch.Generator().manual_seed(0)

    def noted(self, asked, words, kept):
        tried.append(kept)
        return torch.rand(original(self, asked, words, kept).shape, generator=drawn)

    monkeypatch.setattr(CaCoVIDFit, "rewards", noted)
    fit.loss((fit.asked(0), random.Random(0))).backward()
    assert bool((tried[0].sum(-1) == 9).all()) and tried[0].shape[1] == 4
    assert all(p.grad is None for p in vlm.parameters())
    assert fit.net.tokens[1].weight.grad.any() and fit.net.frames[1].weight.grad is None


def test_only_the_network_learns_and_a_resumed_training_is_the_same(vlm, reader, tmp_path, monkeypatch):
    drawn = torch.Generator()

    def some(self, asked, words, kept):
        drawn.manual_seed(int(asked.ids.sum()))
        return torch.rand(kept.shape[:2], generator=drawn)

    monkeypatch.setattr(CaCoVIDFit, "rewards", some)
    check_only_the_network_learns(CaCoVIDFit, TINY, vlm, reader, tmp_path, monkeypatch)


def test_settings_that_make_no_sense():
    for wrong in ({"sets": 1}, {"rates": (1.0,)}, {"rates": (0.0,)}):
        with pytest.raises(ValueError, match="must be"):
            CaCoVIDFit(**wrong)
