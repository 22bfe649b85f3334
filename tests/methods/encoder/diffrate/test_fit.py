"""Training of DiffRate's schedules. "line n" is what the card must show."""

import pytest
import torch
from helpers.vision_tools import random_vlm

from laconic.errors import UnsupportedModelError
from laconic.fit import Trainer
from laconic.fit.images import scenes, with_answers
from laconic.methods.encoder.diffrate.fit import DiffRateFit
from laconic.methods.encoder.diffrate.network import Proxies
from laconic.testbed.vlm_model import build_processor, build_tokenizer

TINY = {"keeps": (0.5, 0.1), "batch_size": 2, "steps": 4, "granularity": 16, "log_every": 1, "save_every": 2}


@pytest.fixture(scope="module")
def model():
    return random_vlm()


@pytest.fixture(scope="module")
def processor():
    return build_processor(build_tokenizer())


def test_only_logits_learn_and_the_artifact_has_the_schedules(model, processor, tmp_path):
    before = {name: x.clone() for name, x in model.named_parameters()}
    fit = DiffRateFit(**TINY)
    artifact = Trainer(fit, model, processor, tmp_path).run()
    assert all(torch.equal(x, before[name]) for name, x in model.named_parameters())
    assert all(float(p.detach().abs().max()) > 0 for p in fit.proxies.parameters())
    data = artifact.data
    assert data["patches"] == 144 and [one["keep"] for one in data["schedules"]] == [0.5, 0.1]
    for one, left in zip(data["schedules"], (73, 15), strict=True):
        assert one["prune"][0] == one["merge"][0] == 145 and one["merge"][-1] == left
        assert 0.3 < one["share"] < 1 and one["target"] < one["share"]


def test_the_answers_logits_are_the_models_when_everything_stays(model, processor):
    fit = DiffRateFit(**TINY)
    fit.build(model, processor)
    given, labels = with_answers(processor, scenes(2, 5))
    got, wanted = fit.answered(Proxies(144, 144, 4, 16, 1), given, labels)
    with torch.no_grad():
        logits = model(**given).logits
    at = labels[:, 1:] != -100
    torch.testing.assert_close(got, logits[:, :-1][at], rtol=1e-3, atol=1e-3)
    assert torch.equal(wanted, labels[:, 1:][at])


def test_a_price_alone_meets_the_target(model, processor):
    """line 7: within 1 % after training, with the answer's loss left out"""
    fit = DiffRateFit(**(TINY | {"keeps": (0.25,), "granularity": 2}))
    fit.build(model, processor)
    optimizer = torch.optim.Adam(fit.proxies.parameters(), lr=0.05)
    for _ in range(150):
        off = fit.proxies[0].macs(fit.width, fit.inner) / fit.whole - fit.targets[0]
        optimizer.zero_grad()
        (fit.price * off**2).backward()
        optimizer.step()
    assert abs(fit.shares()[0] / fit.targets[0] - 1) < 0.01


def test_bad_settings(model, processor):
    with pytest.raises(ValueError, match=r"keeps=\(1\.0,\): each must be below 1"):
        DiffRateFit(keeps=(1.0,))
    with pytest.raises(ValueError, match="one share for each"):
        DiffRateFit(flops=(0.5,))
    fit = DiffRateFit(**TINY)
    fit.build(model, processor)
    given, labels = with_answers(processor, scenes(1, 5))
    given["input_ids"][given["input_ids"] == fit.image] = 20
    with pytest.raises(UnsupportedModelError, match="one view of 144 patches"):
        fit.answered(fit.proxies[0], given, labels)
