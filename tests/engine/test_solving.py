"""Problems put to a model in batches."""

import pytest
import torch
from helpers.thinking import MARK, TOKENIZER, tiny_thinker

import laconic
from laconic.engine.engine import Engine, Request
from laconic.engine.solving import batched, solve
from laconic.errors import UnsupportedModelError
from laconic.fit.chains import Solutions
from laconic.tasks import find_task
from laconic.tasks.reasoning.chains import answer_in


def test_prompts_are_padded_on_the_left():
    given = batched([[5, 6, 7], [8]], 0)
    assert given["input_ids"].tolist() == [[5, 6, 7], [0, 0, 8]]
    assert given["attention_mask"].tolist() == [[1, 1, 1], [0, 0, 1]]


def test_a_batch_finds_what_each_problem_alone_does():
    engine, task = Engine(tiny_thinker(), TOKENIZER), find_task("list_terse")
    request = Request(methods=["truncate_thought:cap=5"])
    numbers = task.numbers(0, 3)
    together = solve(engine, task, numbers, request, batch=3)
    assert together == [solve(engine, task, [number], request)[0] for number in numbers]
    assert max(x.thinking.written for x in together) == 5 and all(x.thinking.closed for x in together)
    assert [x.steps for x in together] == [task.sample(number).facts["steps"] for number in numbers]


def test_right_is_what_the_task_says(monkeypatch):
    engine, task = Engine(tiny_thinker(), TOKENIZER), find_task("list_terse")
    (found,) = solve(engine, task, [1_000_000], Request(methods=["no_thought"], max_new_tokens=4))
    text = engine.answer(
        Request(question=task.sample(1_000_000).question, methods=["no_thought"], max_new_tokens=task.new_tokens)
    ).text
    assert found.right == (answer_in(text) == task.sample(1_000_000).answers[0])
    with torch.inference_mode():
        monkeypatch.setattr(type(task), "exact", lambda self, answer, sample, turn=0: 1.0)
        assert solve(engine, task, [1_000_000], Request(methods=["no_thought"]))[0].right


def test_an_answer_without_a_mark_is_wrong_and_all_of_it_is_thinking(monkeypatch):
    """Also where its text ends with the right number."""
    model, task = tiny_thinker(), find_task("list_terse")
    model.lm_head.register_forward_hook(lambda module, args, out: out.index_fill(-1, torch.tensor([MARK]), -1e9))
    monkeypatch.setattr(type(task), "new_tokens", 8)
    (found,) = solve(Engine(model, TOKENIZER), task, [1_000_000], Request(methods=[]))
    assert not found.right and not found.thinking.closed and found.thinking.answer == 0
    assert found.thinking.written == len(found.ids) == 8 and found.prompt


def test_a_model_without_chains_is_refused_before_anything_runs():
    model, tokenizer = laconic.load("testbed/lm")
    with pytest.raises(UnsupportedModelError, match=r"ends a chain of thought.*give mark="):
        solve(Engine(model, tokenizer), find_task("list_terse"), [1_000_000], Request(methods=[]))
    with pytest.raises(ValueError, match="has no token '###'"):
        Solutions(tokenizer, {"terse": 1.0})
