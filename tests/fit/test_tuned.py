"""Tuning a model's decoder with a token method in place."""

from contextlib import nullcontext
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from helpers.visual_fit import processor, state

from laconic import Pool, UnsupportedModelError, compress
from laconic.fit import Trainer
from laconic.fit.images import with_answers
from laconic.fit.tuned import TunedFit

TINY = {"rows": 2, "log_every": 1, "save_every": 1, "warmup": 0.0}


@dataclass(kw_only=True)
class Averages(TunedFit):
    """With averages of 6 x 6 tokens in even steps."""

    method: ClassVar[str] = "pool"

    def compressed(self, model, step):
        return nullcontext() if step % 2 else compress(model, Pool(stride=6))


@pytest.fixture(scope="module")
def reader():
    return processor()


def test_the_loss_is_that_of_the_answers_in_a_session(vlm, reader):
    fit = Averages(**TINY)
    fit.build(vlm, reader)
    given, labels = with_answers(reader, [fit.asked(6), fit.asked(7)])
    for step, method in ((3, None), (0, Pool(stride=6))):
        batch = (step, given, labels)
        (found,) = [float(term.detach()) for term in fit.loss(batch)]
        with nullcontext() if method is None else compress(vlm, method):
            logits = vlm(**given).logits
        each = []
        for b in range(2):
            answer = labels[b][labels[b] != -100]
            each.append(-logits[b, -len(answer) - 1 : -1].log_softmax(-1).gather(1, answer[:, None])[:, 0])
        assert found == pytest.approx(float(torch.cat(each).mean()), rel=1e-4)
    assert torch.equal(fit.batch(3)[1]["input_ids"], given["input_ids"])


def test_the_decoder_alone_learns_and_the_model_stays(vlm, reader, tmp_path):
    before = state(vlm)
    lines = []
    fit = Averages(**TINY, steps=3)
    straight = Trainer(fit, vlm, reader, tmp_path / "a", lines.append).run()
    assert all(torch.equal(x, y) for x, y in zip(before, state(vlm), strict=True))
    own = dict(vlm.model.language_model.named_parameters())
    names = {name.removeprefix("decoder.") for name in straight.tensors}
    assert names == {name for name in own if not name.startswith("embed_tokens")}
    moved = straight.tensors["decoder.layers.0.self_attn.q_proj.weight"].float() - own["layers.0.self_attn.q_proj.weight"]
    assert moved.abs().max() > 1e-4 and " right " in lines[0]
    Trainer(Averages(**TINY, steps=2), vlm, reader, tmp_path / "b").run()
    resumed = Trainer(Averages(**TINY, steps=3), vlm, reader, tmp_path / "b").run(resume=True)
    assert resumed.tensors.keys() == straight.tensors.keys()


def test_right_answers_are_those_to_the_labels_and_seeds_draw_other_scenes(vlm, reader, monkeypatch):
    fit, other, seen = Averages(**TINY), Averages(**TINY, seed=1), []
    for one in (fit, other):
        one.build(vlm, reader)
    monkeypatch.setattr(
        "laconic.fit.tuned.right",
        lambda logits, wanted: seen.append((logits, wanted)) or torch.tensor([True, False, False, False]),
    )
    _, given, labels = fit.batch(3)
    for _ in fit.loss((3, given, labels)):
        ((logits, wanted),) = seen
    assert torch.equal(wanted, labels[:, 1:]) and logits.shape[:2] == labels.shape and not logits.requires_grad
    assert fit.progress() == "right 25.0 %"
    assert fit.asked(6).shown()[0].tobytes() != other.asked(6).shown()[0].tobytes()


def test_what_makes_no_sense_is_refused(llama, reader):
    with pytest.raises(UnsupportedModelError, match="visual tokens"):
        Averages(**TINY).build(llama, reader)
    with pytest.raises(ValueError, match="below 1"):
        Averages(**TINY | {"warmup": 1.0})
