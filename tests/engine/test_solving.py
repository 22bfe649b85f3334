"""Problems put to a model in batches."""

import torch
from helpers.thinking import TOKENIZER, tiny_thinker

from laconic.engine.engine import Engine, Request
from laconic.engine.solving import batched, solve
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
