"""Labels and training of `explainability`; numbers are the lines of the card's "must show"."""

from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F
from helpers.explained_toy import ASK, OBJECT, SIDE, Toy, host, images
from helpers.planted_vlm import planted, prompt
from transformers import AttentionInterface

from laconic import ArtifactError
from laconic.engine.engine import Engine
from laconic.fit import Trainer
from laconic.fit.checkpoint import CHECKPOINT
from laconic.fit.trainer import step
from laconic.methods.tokens.explainability.fit import PAIRS, ExplainabilityFit, Labels, divergence
from laconic.methods.tokens.explainability.network import load
from laconic.methods.tokens.explainability.relevance import explained, propagated, step_relevance, target, weighted

TINY = {"samples": 12, "steps": 6, "batch_size": 4, "save_every": 2, "save_labels": 4, "log_every": 2}


@dataclass(kw_only=True)
class Toys(ExplainabilityFit):
    """Asks the toy's questions; `wrong`: none of the reference answers is right."""

    new_tokens: int = 1
    asked: int = 12
    wrong: bool = False

    def questions(self, processor):
        source = Toy(0, self.asked)
        source.answers = source.answers + 100 * self.wrong
        return source.ask


@pytest.fixture(scope="module")
def toy():
    model = host()
    model.set_attn_implementation("eager")
    return model


def matrices(layers=4, heads=3, n=9):
    torch.manual_seed(0)
    attention = [torch.rand(heads, n, n, dtype=torch.float64).tril() for _ in range(layers)]
    return attention, [torch.randn(heads, n, n, dtype=torch.float64) for _ in range(layers)]


def test_2_the_row_vector_equals_the_matrix_recursion():
    attention, gradient = matrices()
    layers = [weighted(a, g) for a, g in zip(attention, gradient, strict=True)]
    whole = torch.eye(9, dtype=torch.float64)
    for a, g in zip(attention, gradient, strict=True):
        mean = torch.zeros(9, 9, dtype=torch.float64)
        for head in range(3):
            mean += torch.clamp(a[head] * g[head], min=0) / 3
        whole = whole + mean @ whole
    for row in range(9):
        torch.testing.assert_close(propagated(layers, row), whole[row], rtol=1e-6, atol=1e-6)


def test_3_the_token_that_the_answer_depends_on_is_the_most_relevant(toy):
    for seed in range(5):
        vectors, answers, at = images(1, seed, objects=1)
        vectors[0, at[0].nonzero()[0, 0], 8:12] = F.one_hot(answers[0], 4).float()
        given = prompt(vectors, SIDE, [ASK])
        answer = toy.generate(**given, max_new_tokens=1, do_sample=False)[0, -1:]
        assert int(answer) - 10 == int(answers[0])
        _, relevance = explained(toy, given, answer)
        assert int(relevance.argmax()) == int(at[0].nonzero()[0, 0]) and bool((relevance >= 0).all())


def test_4_gradients_are_those_of_the_matrices_that_the_model_uses(vlm_small):
    model, given = vlm_small
    moved = {"layer": -1, "at": (0, 0, 0), "by": 0.0}

    def nudged(module, query, key, value, mask, scaling, dropout=0.0, **kwargs):
        groups, n = query.shape[1] // key.shape[1], key.shape[2]
        key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
        weights = (query @ key.mT * scaling + torch.full((n, n), float("-inf")).triu(1)).softmax(-1)
        if module.layer_idx == moved["layer"]:
            weights[(0, *moved["at"])] += moved["by"]
        return (weights @ value).transpose(1, 2).contiguous(), weights

    AttentionInterface.register("nudged", nudged)
    out, last, token = model(**given, output_attentions=True, use_cache=False), given["input_ids"].shape[1] - 1, 17
    gradients = torch.autograd.grad(out.logits[0, last, token], out.attentions)
    stack = model.model.language_model
    for layer, head, row, column in ((0, 1, last, 4), (1, 2, 6, 3), (1, 0, last, 0), (0, 3, 5, 5)):
        stack.set_attn_implementation("nudged")
        sides = []
        for by in (3e-3, -3e-3):  # the model's norms are in fp32
            moved.update(layer=layer, at=(head, row, column), by=by)
            sides.append(model(**given).logits[0, last, token].item())
        stack.set_attn_implementation("eager")
        measured = (sides[0] - sides[1]) / 6e-3
        assert gradients[layer][0, head, row, column].item() == pytest.approx(measured, rel=1e-3, abs=1e-5)


@pytest.fixture
def vlm_small():
    """A random host of two layers in double precision, whose embeddings want a gradient."""
    torch.manual_seed(1)
    model = planted(3, heads=4, kv_heads=2).double()
    for p in model.model.language_model.layers.parameters():
        p.copy_(torch.randn_like(p) * 0.3)
    model.model.language_model.embed_tokens.weight.copy_(torch.randn(32, 64) * 0.5)
    model.lm_head.weight.copy_(torch.randn(32, 64))
    model.set_attn_implementation("eager")
    model.get_input_embeddings().register_forward_hook(lambda m, a, out: out.requires_grad_(True))
    given = prompt(torch.randn(1, 9, 32, dtype=torch.float64), 3, [5, 6, 7])
    return model, given


def test_one_pass_over_prompt_and_answer_equals_a_pass_for_every_step(vlm_small):
    """The slow reference of the card: one forward for every answer token, matrices up to it, R in full."""
    model, given = vlm_small
    answer = torch.tensor([11, 4, 20])
    attention, relevance = explained(model, given, answer)
    total = torch.zeros(9, dtype=torch.float64)
    for t, token in enumerate(answer.tolist()):
        ids = torch.cat([given["input_ids"], answer[None, :t]], 1)
        out = model(input_ids=ids, pixel_values=given["pixel_values"], output_attentions=True, use_cache=False)
        gradients = torch.autograd.grad(out.logits[0, -1, token], out.attentions)
        r = torch.eye(ids.shape[1], dtype=torch.float64)
        for a, g in zip(out.attentions, gradients, strict=True):
            r = r + (a[0].detach() * g[0]).relu().mean(0) @ r
        total += r[-1, 1:10]
        if t == 0:
            expected = out.attentions[0][0].detach()[:, 10:13, 1:10].mean((0, 1))
            torch.testing.assert_close(attention, expected.float())
    torch.testing.assert_close(relevance, (total / 3).float(), rtol=1e-5, atol=1e-7)


def test_tokens_after_the_last_row_have_no_relevance(vlm_small):
    model, given = vlm_small
    out = model(**given, output_attentions=True, use_cache=False)
    found = step_relevance(out.attentions, out.logits[0, 7, 3], 7)
    assert bool((found[8:] == 0).all()) and float(found[7]) >= 1.0


def test_5_targets_sum_to_one_and_half_of_them_are_zero():
    torch.manual_seed(0)
    for n in (2, 7, 64):
        relevance = torch.rand(n)
        goal = target(relevance)
        assert float(goal.sum()) == pytest.approx(1.0) and int((goal == 0).sum()) == (n + 1) // 2
        assert bool((goal[relevance.topk(n // 2).indices] > 0).all())
    assert float(target(torch.zeros(8)).sum()) == 1.0 and int((target(torch.zeros(8)) == 0).sum()) == 4


def test_5_kl_is_zero_for_the_target_alone():
    class Says(torch.nn.Module):
        def __init__(self, logits):
            super().__init__()
            self.logits = logits

        def forward(self, attention):
            return self.logits

    goal = target(torch.tensor([0.1, 0.9, 0.4, 0.2, 0.7, 0.3]))
    equal = goal.clamp(min=1e-12).log()
    pair = [(torch.ones(6), goal)]
    assert float(divergence(Says(equal[None]), pair)) == pytest.approx(0.0, abs=1e-5)
    by_hand = sum(g * (g.log() - s) for g, s in zip(goal, torch.zeros(6).log_softmax(-1), strict=True) if g > 0)
    assert float(divergence(Says(torch.zeros(1, 6)), pair)) == pytest.approx(float(by_hand), rel=1e-5)
    other = equal.clone()
    other[1] += 0.1
    assert float(divergence(Says(other[None]), pair)) > 1e-4


def test_pairs_of_several_lengths_train_together(toy):
    fit = Toys(**TINY | {"batch_size": 6})
    net = fit.build(toy, Toy(0, 1)).train()
    fit.labels.pairs = [(torch.rand(n), target(torch.rand(n))) for n in (8, 8, 12, 12, 5, 5)]
    optimizer = fit.optimizer(net)
    first, *_, last = [step(fit, net, optimizer, number) for number in range(31)]
    assert last < first


def test_only_right_answers_are_labelled(toy):
    source = Toy(3, 20)
    labels = Labels(Engine(toy, source), source.ask, 1)
    right = [labels.label() for _ in range(20)]
    answers = [source.decode(toy.generate(**source.ask(n)[0], max_new_tokens=1)[0, -1:].tolist()) for n in range(20)]
    assert right == [answer == source.ask(n)[1] for n, answer in enumerate(answers)]
    assert 10 < sum(right) == len(labels.pairs) < 20
    attention, goal = labels.pairs[0]
    first = right.index(True)
    assert attention.shape == goal.shape == (64,) and float(goal.sum()) == pytest.approx(1.0)
    assert float(goal[source.objects[first]].sum()) > 0.95  # the objects, not the attractors
    assert float(attention[source.objects[first]].sum()) < 0.5
    assert bool((source.vectors[first][attention.topk(5).indices, OBJECT] == 0).all())


def test_a_resumed_training_ends_where_an_unbroken_one_does(toy, tmp_path, monkeypatch):
    def run(folder, resume, lines=None, **given):
        log = (lambda line: None) if lines is None else lines.append
        return Trainer(Toys(**TINY | given), toy, Toy(0, 1), folder, log).run(resume)

    whole, broken = run(tmp_path / "whole", False), tmp_path / "broken"

    def stops(original, after):
        count = [0]

        def call(self, *given):
            count[0] += 1
            if count[0] > after:
                raise KeyboardInterrupt
            return original(self, *given)

        return call

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):  # while labelling
        patch.setattr(Labels, "label", stops(Labels.label, 6))
        run(broken, False)
    assert {path.name for path in broken.iterdir()} == {CHECKPOINT, PAIRS, "train.log"}
    labelled = []
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):  # while training
        patch.setattr(Toys, "loss", stops(Toys.loss, 3))
        run(broken, True, labelled)
    assert [line.split(",")[0] for line in labelled if "questions" in line] == ["8 questions", "12 questions"]
    lines = []
    again = run(broken, True, lines)
    assert [line.split(" loss ")[0] for line in lines] == ["step 4", "step 6"]  # neither labelled nor trained again
    assert again == whole and all(torch.equal(x, again.tensors[name]) for name, x in whole.tensors.items())
    assert 10 <= whole.data["pairs"] <= 12 and whole.data["kernel"] == 5 and not load(whole).training
    assert all(x.dtype != torch.bfloat16 for x in whole.tensors.values())
    with pytest.raises(ArtifactError, match=r"other settings \(lr\)"):
        run(broken, True, lr=0.1)


def test_a_fresh_training_does_not_take_the_labels_of_another(toy, tmp_path):
    run = Trainer(Toys(**TINY | {"samples": 4, "steps": 1}), toy, Toy(0, 1), tmp_path).run
    run()
    before = (tmp_path / PAIRS).read_bytes()
    (tmp_path / CHECKPOINT).unlink()
    (tmp_path / PAIRS).write_bytes(b"broken")
    run()
    assert (tmp_path / PAIRS).read_bytes() == before


def test_the_host_is_as_it_was(toy):
    toy.set_attn_implementation("sdpa")
    before = {name: x.clone() for name, x in toy.state_dict().items()}
    Trainer(Toys(samples=4, steps=1), toy, Toy(0, 1)).run()
    assert all(torch.equal(x, before[name]) for name, x in toy.state_dict().items())
    assert toy.model.language_model.config._attn_implementation == "sdpa"
    toy.set_attn_implementation("eager")


def test_questions_are_drawn_scenes_with_their_answers():
    from laconic.testbed.vlm_model import VISUAL_TOKENS, build_processor, build_tokenizer

    processor = build_processor(build_tokenizer())
    ask = ExplainabilityFit().questions(processor)
    assert len({ask(n)[1] for n in range(7)}) > 2
    assert int((ask(0)[0]["input_ids"] == 6).sum()) == VISUAL_TOKENS


@pytest.mark.parametrize(("given", "message"), [({"kernel": 4}, "must be odd"), ({"steps": 0}, "steps=0 must be positive")])
def test_settings_that_make_no_sense(given, message):
    with pytest.raises(ValueError, match=message):
        ExplainabilityFit(**given)


def test_a_host_that_answers_nothing_is_refused(toy):
    with pytest.raises(ValueError, match="answered 0 of 4 questions right"):
        Trainer(Toys(**TINY | {"samples": 4}, wrong=True), toy, Toy(0, 1)).run()
