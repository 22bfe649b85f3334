"""Training of DyVTE's gates: labels, what learns, checkpoints. "line n" is what the card must show."""

import hashlib
import json

import pytest
import torch
from helpers.vision_tools import random_vlm

import laconic.methods.tokens.dyvte.fit as dyvte
from laconic import ArtifactError, compress
from laconic.artifact import Artifact, numbers
from laconic.fit import Trainer
from laconic.fit.checkpoint import load_state
from laconic.fit.images import inputs, scenes, with_answers
from laconic.methods.tokens.dyvte.fit import DyVTEFit, answers_at, safe
from laconic.methods.tokens.dyvte.method import DyVTE
from laconic.testbed.vlm_model import build_processor, build_tokenizer

TINY = {"width": 8, "batch_size": 3, "steps": 3, "check": 1, "log_every": 1, "save_every": 1, "lr": 1e-2}


@pytest.fixture(scope="module")
def model():
    return random_vlm()


@pytest.fixture(scope="module")
def processor():
    return build_processor(build_tokenizer())


def peaked(tokens, height, vocabulary=5):
    """Logits [m, V] with `height` at the given tokens."""
    return torch.nn.functional.one_hot(torch.tensor(tokens), vocabulary) * height


def test_an_exit_is_safe_if_the_answer_agrees_and_the_loss_hardly_grows():
    """line 4: both conditions, each alone, and none"""
    labels = torch.tensor([[-100, 1, 2]] * 5)
    whole = torch.stack([peaked([0, 1, 2], 3.0)] * 5)
    short = torch.stack(
        [
            peaked([3, 1, 2], 3.0),  # differs only where nothing is asked
            peaked([0, 1, 2], 2.0),  # agrees, but the loss is larger
            peaked([0, 1, 3], 3.0),  # half disagrees
            peaked([0, 1, 2], 4.0),  # better
            peaked([0, 1, 2], 2.99),  # hardly worse
        ]
    )
    assert safe(whole, short, labels, 0.99, 1.03).tolist() == [True, False, False, True, True]
    losses = [float(torch.nn.functional.cross_entropy(x[1:], labels[0, 1:])) for x in (whole[4], short[4])]
    assert losses[0] < losses[1] < 1.03 * losses[0]


def test_identical_runs_are_always_safe():
    """line 4: also where the loss is exactly zero"""
    logits = torch.cat([torch.randn(4, 3, 5), torch.stack([peaked([1, 1, 1], 1e4)])])
    labels = torch.tensor([[0, 1, 2]] * 4 + [[1, 1, 1]])
    assert safe(logits, logits, labels, 0.99, 1.03).all()


def test_answers_follow_prompts(processor):
    asked = scenes(4, 10)
    given, labels = with_answers(processor, asked)
    prompts = inputs(processor, asked)
    for b, one in enumerate(asked):
        own = given["input_ids"][b][given["attention_mask"][b] == 1]
        prompt = prompts["input_ids"][b][prompts["attention_mask"][b] == 1]
        assert own[: len(prompt)].tolist() == prompt.tolist()
        told = processor.tokenizer.decode(own[len(prompt) :], skip_special_tokens=True)
        assert told.strip() == one.answers[0]
        assert labels[b][labels[b] != -100].tolist() == own[len(prompt) :].tolist()
        assert given["attention_mask"][b].diff().min() >= 0
    assert answers_at(labels) == max(int((row != -100).sum()) for row in labels) + 1


def built(model, processor, **given):
    """A fit of fresh gates, before its first step."""
    fit = DyVTEFit(**TINY | given)
    torch.manual_seed(fit.seed)
    fit.build(model, processor)
    return fit


def test_gates_read_in_training_what_they_read_at_inference(model, processor, tmp_path, monkeypatch):
    fit = built(model, processor)
    _, features = fit.whole(*fit.examples(0))
    Artifact.of("dyvte", "trained", model, {"shares": []}, numbers(fit.gates)).save(tmp_path / "w.safetensors")
    read = []
    real = type(fit.gates[0]).forward
    monkeypatch.setattr(type(fit.gates[0]), "forward", lambda self, x: read.append(x) or real(self, x))
    with compress(model, DyVTE(artifact=str(tmp_path / "w.safetensors"), tau=1.0)):
        model(**inputs(processor, scenes(3, 0)))
    torch.testing.assert_close(torch.stack(read), features.flatten(0, 1), rtol=1e-4, atol=1e-4)


def test_labels_compare_the_whole_model_with_a_forced_exit(model, processor):
    fit = built(model, processor)
    given, labels = fit.examples(1)
    whole, _ = fit.whole(given, labels)
    full = model(**given).logits
    torch.testing.assert_close(whole, full[:, -whole.shape[1] :])
    with compress(model, DyVTE(exit_layer=2)):
        short = model(**given).logits
    for b, got in enumerate(fit.label(given, labels, whole, 2).tolist()):
        at = (labels[b] != -100).nonzero()[:, 0]
        one = full[b, at - 1], short[b, at - 1 - full.shape[1]]
        agree = float((one[0].argmax(-1) == one[1].argmax(-1)).float().mean())
        losses = [float(torch.nn.functional.cross_entropy(x, labels[b, at])) for x in one]
        assert got == (agree > 0.99 and losses[1] < 1.03 * losses[0])


def test_logits_are_compared_with_the_tokens_that_they_predict(model, processor, monkeypatch):
    fit, given_to = built(model, processor), []
    monkeypatch.setattr(dyvte, "safe", lambda *args: given_to.append(args) or safe(*args))
    given, labels = fit.examples(1)
    whole, _ = fit.whole(given, labels)
    fit.label(given, labels, whole, 2)
    (logits, _, wanted, *_), full = given_to[0], model(**given).logits
    for b in range(len(labels)):
        at = (labels[b] != -100).nonzero()[:, 0]
        asked = wanted[b] != -100
        assert wanted[b, asked].tolist() == labels[b, at].tolist()
        torch.testing.assert_close(logits[b, asked], full[b, at - 1])


def state(module):
    return hashlib.sha256(b"".join(x.numpy().tobytes() for x in module.state_dict().values())).hexdigest()


def test_only_gates_learn_and_a_resumed_training_is_the_same(model, processor, tmp_path, monkeypatch):
    """line 8, and checkpoints"""
    before, first = state(model), state(built(model, processor).gates)
    one = DyVTEFit(**TINY)
    straight = Trainer(one, model, processor, tmp_path / "a").run()
    assert state(model) == before and not any(p.grad is not None for p in model.parameters())
    assert state(one.gates) != first

    original = DyVTEFit.batch

    def stops(self, step):
        if step == 2:
            raise KeyboardInterrupt
        return original(self, step)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(DyVTEFit, "batch", stops)
        Trainer(DyVTEFit(**TINY), model, processor, tmp_path / "b").run()
    lines, two = [], DyVTEFit(**TINY)
    resumed = Trainer(two, model, processor, tmp_path / "b", lines.append).run(resume=True)
    assert state(one.gates) == state(two.gates) and straight.data == resumed.data
    for folder in ("a", "b"):  # the checkpoint has the exact numbers, the artifact short ones
        load_state(tmp_path / folder, [two.optimizer(two.gates)], two.gates)
        assert state(one.gates) == state(two.gates)
    assert [line.split(" loss")[0] for line in lines][:1] == ["step 3"] and " right " in lines[0]
    taus, means = zip(*straight.data["shares"], strict=True)
    assert list(taus) == sorted(taus) and list(means) == sorted(means) and 1 / 8 <= means[0] <= means[-1] <= 1
    straight.save(tmp_path / "w.safetensors")
    with compress(model, DyVTE(artifact=str(tmp_path / "w.safetensors"), keep=max(means[0], 0.9))):
        model(**inputs(processor, scenes(1, 3)))
    with pytest.raises(ArtifactError, match=r"other settings \(width\)"):
        Trainer(DyVTEFit(**TINY | {"width": 9}), model, processor, tmp_path / "b").run(resume=True)
    more = Trainer(DyVTEFit(**TINY | {"check": 2}), model, processor, tmp_path / "b").run(resume=True)
    assert more.settings["check"] == 2 and more.data != straight.data  # thresholds alone are measured again


def test_the_schedule_and_the_seeds(model, processor):
    fit = DyVTEFit(steps=100, warmup=0.1)
    rates = [fit.rate(step) for step in range(100)]
    assert rates[:3] == pytest.approx([0.1, 0.2, 0.3]) and max(rates) == 1.0 and rates[-1] < 0.01
    with pytest.raises(ValueError, match="reserved for evaluation"):
        DyVTEFit(seed=1_000_000)
    some, others = (built(model, processor, seed=seed, batch_size=2).examples(0)[0]["input_ids"] for seed in (0, 10))
    assert some.shape != others.shape or not torch.equal(some, others)  # a seed of its own, samples of its own
    for wrong in ({"width": 0}, {"warmup": 1.0}, {"seed": -1}):
        with pytest.raises(ValueError, match="must be"):
            DyVTEFit(**wrong)


def test_a_file_of_one_s_own(model, processor, tmp_path):
    one = scenes(1, 5)[0]
    one.shown()[0].save(tmp_path / "a.png")
    line = json.dumps({"image": "a.png", "question": one.question, "answer": one.answers[0]})
    (tmp_path / "data.jsonl").write_text(line + "\n")
    given, labels = built(model, processor, batch_size=2, file=str(tmp_path / "data.jsonl")).examples(0)
    want, wanted = with_answers(processor, [one, one])
    assert torch.equal(given["input_ids"], want["input_ids"]) and torch.equal(labels, wanted)
