"""Group-relative policy optimisation: advantages, clips, ratios, caps."""

import random

import pytest
import torch
from helpers.thinking import MARK, TOKENIZER, tiny_thinker
from torch import tensor

from laconic.fit import grpo
from laconic.fit.chains import Solutions
from laconic.fit.grpo import PolicyFit, Rollouts, advantages, log_probabilities, roll_out, surrogate
from laconic.fit.thinker import Thinker

END = TOKENIZER.eos_token_id


def test_7_advantages_sum_to_nothing_and_equal_rewards_give_none():
    gain = advantages(tensor([[1.0, 0, 0, 1], [1, 1, 1, 1], [0, 0, 0, 0.5]]))
    torch.testing.assert_close(gain.sum(1), torch.zeros(3), atol=1e-6, rtol=0)
    assert not gain[1].any()
    torch.testing.assert_close(gain[0], tensor([1.0, -1, -1, 1]))


@pytest.mark.parametrize(
    ("ratio", "gain", "moves"),
    [(1.25, 1.0, True), (1.3, 1.0, False), (0.75, -1.0, False), (0.85, -1.0, True), (0.5, 1.0, True), (1.5, -1.0, True)],
)
def test_4_the_clip_is_wider_above(ratio, gain, moves):
    new = tensor([[ratio]]).log().requires_grad_()
    surrogate(new, torch.zeros(1, 1), tensor([gain]), torch.ones(1, 1)).backward()
    assert bool(new.grad.abs() > 1e-9) is moves
    if moves:
        torch.testing.assert_close(new.grad, tensor([[-gain * ratio]]))


def test_the_loss_is_averaged_over_answers_or_over_tokens():
    gain, real = tensor([1.0, 2.0]), tensor([[1, 0, 0], [1, 1, 1]])
    zero = torch.zeros(2, 3)
    assert float(surrogate(zero, zero, gain, real)) == pytest.approx(-1.5)
    assert float(surrogate(zero, zero, gain, real, mean="tokens")) == pytest.approx(-(1 + 6) / 4)


@pytest.fixture(scope="module")
def thinker():
    return Thinker(tiny_thinker(eos_token_id=END))


def test_5_ratios_are_one_before_the_first_update(thinker):
    prompts = [x.prompt for x in Solutions(TOKENIZER, {"terse": 1}).draw(random.Random(0), 3)]
    torch.manual_seed(0)
    drawn = roll_out(thinker.lm, prompts, 4, 30, TOKENIZER.pad_token_id)
    new = log_probabilities(thinker, drawn)
    real = drawn.real.bool()
    torch.testing.assert_close(new[real], drawn.old[real], atol=1e-4, rtol=0)
    assert drawn.ids.shape[0] == 12 and not torch.equal(drawn.ids[0], drawn.ids[1])
    for answer in drawn.answers():
        assert END not in answer[:-1] and len(answer) <= 30


def test_2_what_lies_behind_the_cap_counts_for_nothing(thinker):
    fit = PolicyFit.__new__(PolicyFit)
    fit.tokenizer, fit.group = TOKENIZER, 1
    (solution,) = Solutions(TOKENIZER, {"terse": 1}).draw(random.Random(2), 1)
    whole = solution.thought + solution.answer

    def right(cap):
        ids = tensor([solution.prompt + whole[:cap]])
        return fit.right([solution], Rollouts(ids, len(solution.prompt), torch.ones_like(ids), None)).item()

    assert right(len(whole) - 1) == 1  # the end may be missing
    assert right(len(whole) - 2) == 0 and right(whole.index(MARK)) == 0


def test_drawing_longer_and_cutting_is_drawing_less(thinker):
    prompts = [[5, 6, 7, 8]]
    torch.manual_seed(3)
    long = roll_out(thinker.lm, prompts, 4, 24, 0)
    torch.manual_seed(3)
    short = roll_out(thinker.lm, prompts, 4, 10, 0)
    assert torch.equal(short.ids, long.ids[:, :14]) and torch.equal(short.real, long.real[:, :10])


class Plain(PolicyFit):
    method = "plain"


def test_a_cap_below_the_shortest_answer_is_refused():
    with pytest.raises(ValueError, match=r"answers are cut after 9 tokens, and the shortest chain with its answer has \d+"):
        Plain(longest=9).build(tiny_thinker(eos_token_id=END), TOKENIZER)


def test_an_update_makes_the_better_answers_likelier(monkeypatch):
    model = tiny_thinker(eos_token_id=END)
    fit = Plain(questions=2, group=4, longest=40, style="terse")
    thinker = fit.build(model, TOKENIZER)
    wanted = tensor([1.0, 0, 0, 1, 0, 0, 1, 0])
    monkeypatch.setattr(fit, "right", lambda asked, drawn: wanted)
    kept = {}
    real_roll_out = grpo.roll_out
    monkeypatch.setattr(grpo, "roll_out", lambda *given: kept.setdefault("drawn", real_roll_out(*given)))
    torch.manual_seed(0)
    loss = fit.loss(fit.batch(0))
    before = log_probabilities(thinker, kept["drawn"]).detach()
    loss.backward()
    with torch.no_grad():
        for p in thinker.decoder.parameters():
            p -= 1e-4 * p.grad
    change = ((log_probabilities(thinker, kept["drawn"]) - before) * kept["drawn"].real).sum(1) / kept["drawn"].real.sum(1)
    assert change[wanted == 1].mean() > change[wanted == 0].mean()
    assert fit.progress().startswith("right 37.5 %")
