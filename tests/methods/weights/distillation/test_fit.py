"""The training of a student: what it learns from, and that it learns."""

import copy

import pytest
import torch
from helpers.thinking import TOKENIZER, tiny_thinker
from torch.nn.functional import kl_div

from laconic.fit.chains import IGNORED
from laconic.fit.losses import student_loss
from laconic.fit.trainer import Trainer
from laconic.methods.weights.distillation.fit import DistillationFit

SMALL = {"problems": True, "batch_size": 4, "log_every": 1000}


def test_the_loss_is_the_divergence_but_for_the_teachers_entropy():
    student, teacher = torch.randn(2, 3, 7), torch.randn(2, 3, 7)
    entropy = -(teacher.softmax(-1) * teacher.log_softmax(-1)).sum(-1).mean()
    apart = kl_div(student.log_softmax(-1), teacher.softmax(-1), reduction="sum") / 6
    torch.testing.assert_close(student_loss(student, teacher), apart + entropy)
    assert student_loss(student, teacher, 3) < student_loss(student, teacher)


def test_half_of_the_rows_are_facts_and_prompts_teach_nothing():
    fit = DistillationFit(known=5, **SMALL)
    fit.build(tiny_thinker(), TOKENIZER)
    ids, labels = fit.batch(3)
    assert torch.equal(ids, fit.batch(3)[0]) and not torch.equal(ids[:, :8], fit.batch(4)[0][:, :8])
    other = DistillationFit(known=5, seed=1, **SMALL)
    other.build(fit.model, TOKENIZER)
    assert other.batch(3)[0].tolist() != ids.tolist()
    said = [TOKENIZER.decode(label[label != IGNORED]) for label in labels]
    assert [text.startswith("###") for text in said] == [False, False, True, True]
    loss = fit.loss((ids, labels))
    other = ids.clone()
    other[labels == IGNORED] = ids[labels == IGNORED]
    with torch.no_grad():
        wanted, got = (m(input_ids=ids).logits[:, :-1][labels[:, 1:] != IGNORED] for m in (fit.model, fit.student))
    torch.testing.assert_close(loss, student_loss(got, wanted))


def test_a_text_is_read_in_other_pieces_in_every_step(tmp_path):
    (tmp_path / "text.txt").write_text("3+4=7;check 7-2=5;wait 7*2=14;" * 40)
    fit = DistillationFit(text=tmp_path / "text.txt", tokens=12, batch_size=3)
    fit.build(tiny_thinker(), TOKENIZER)
    one, again, next_one = (fit.batch(step) for step in (0, 0, 1))
    assert one[0].shape == (3, 12) and torch.equal(one[0], again[0]) and not torch.equal(one[0], next_one[0])
    with torch.no_grad():
        wanted, got = (model(input_ids=one[0]).logits[:, :-1] for model in (fit.model, fit.student))
        torch.testing.assert_close(fit.loss(one), student_loss(got, wanted))
    assert fit.settings()["text"] == "text.txt"


def test_a_student_comes_nearer_to_its_model():
    model = tiny_thinker()
    before = copy.deepcopy(model.state_dict())
    fit = DistillationFit(steps=30, lr=1e-2, **SMALL)
    fit.build(model, TOKENIZER)
    with torch.no_grad():
        batch = fit.batch(1000)
        first = float(fit.loss(batch))
    artifact = Trainer(fit, model, TOKENIZER).run()
    with torch.no_grad():
        assert float(fit.loss(batch)) < first - 0.1
    assert artifact.data["share"] == 0.5 and all(torch.equal(model.state_dict()[name], x) for name, x in before.items())


def test_settings_out_of_range():
    with pytest.raises(ValueError, match="must be below 1"):
        DistillationFit(share=1.0)
    with pytest.raises(ValueError, match="give problems=true"):
        DistillationFit(known=3)
