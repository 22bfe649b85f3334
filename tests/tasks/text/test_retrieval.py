"""Samples are deterministic, of the asked length, hold their answers and distractors, and are scored as RULER does."""

from itertools import pairwise

import pytest
from helpers.chats import whole_chat

from laconic.tasks import Sample, Turn, find_task, list_tasks
from laconic.tasks.metrics import string_match_all
from laconic.tasks.text import corpus
from laconic.tasks.text.retrieval import EVALUATION_SEED, TASKS, make, needles_at

LENGTHS = (128, 512, 1024, 2048)
SEED = EVALUATION_SEED + 77


@pytest.mark.parametrize("task", TASKS)
def test_same_seed_same_sample(task, tokenizer):
    first, again, other = (make(task, seed, 512, tokenizer) for seed in (SEED, SEED, SEED + 1))
    assert first == again
    assert first.context != other.context


@pytest.mark.parametrize("tokens", LENGTHS)
@pytest.mark.parametrize("task", TASKS)
def test_whole_chat_is_close_below_the_asked_length(task, tokens, tokenizer):
    for seed in range(SEED, SEED + 6):
        length = len(whole_chat(make(task, seed, tokens, tokenizer), tokenizer))
        assert tokens - 24 <= length <= tokens


@pytest.mark.parametrize("tokens", LENGTHS[1:])
@pytest.mark.parametrize("task", TASKS)
def test_answers_and_distractors_are_in_the_context(task, tokens, tokenizer):
    sample = make(task, SEED, tokens, tokenizer)
    for turn in sample.turns:
        assert all(answer in sample.context for answer in turn.answers)
        assert turn.gold.startswith(turn.prefix)
        assert string_match_all(turn.gold, turn.answers) == 1.0
    lines = sample.context.split("\n")
    needles = [line for line in lines if line.startswith(("The code for ", "Put ", "Copy ")) and line.endswith(".")]
    asked = sum(len(turn.answers) for turn in sample.turns)
    if task == "single":
        assert len(needles) == 1
    else:
        assert len(needles) >= 2 * needles_at(tokens) // 3 and len(needles) > asked
    assert len(lines) > len(needles)


def test_multivalue_keys_all_have_three_values(tokenizer):
    context = make("multivalue", SEED, 1024, tokenizer).context
    keys = [line.split()[3] for line in context.split("\n") if line.startswith("The code for ")]
    assert {keys.count(key) for key in keys} == {3}


def test_chain_statements_stay_in_order(tokenizer):
    sample = make("vartrack", SEED, 1024, tokenizer)
    names = sample.turns[0].answers
    steps = [f"into {names[0]}.", *(f"Copy {a} into {b}." for a, b in pairwise(names))]
    places = [sample.context.index(step) for step in steps]
    assert places == sorted(places)


def test_kvturns_asks_five_different_keys(tokenizer):
    turns = make("kvturns", SEED, 512, tokenizer).turns
    assert len({turn.question for turn in turns}) == 5


def test_evaluation_haystacks_are_held_out(tokenizer):
    assert not set(corpus.documents("prose")) & set(corpus.documents("prose", held_out=True))
    held_out = set(corpus.lines("prose", held_out=True))
    body = [line for line in make("single", SEED, 1024, tokenizer).context.split("\n") if "The code for" not in line]
    # The last line of the haystack may be cut to fit.
    assert sum(line not in held_out for line in body) <= 1


@pytest.mark.parametrize(
    ("output", "answers", "expected"),
    [
        (" 4815263.", ("4815263",), 1.0),
        (" 4815264.", ("4815263",), 0.0),
        ("It is 4815263, not 7.", ("4815263", "1234567"), 0.5),
        ("AMBER, falcon", ("amber", "falcon", "river", "maple"), 0.5),
        ("", ("1", "2"), 0.0),
        ("3 2 1", ("1", "2", "3"), 1.0),
    ],
)
def test_score_is_the_share_of_answers_contained(output, answers, expected):
    asked = Sample("multikey", 0, (Turn("?", answers),))
    assert find_task("multikey").score(output, asked) == expected


@pytest.mark.parametrize(
    ("output", "ordered", "expected"),
    [
        (" 11, 22.", True, 1),
        (" 22, 11.", True, 0),
        (" 11, 22. And", True, 0),
        (" 22, 11.", False, 1),
        (" 22, 11, 33.", False, 0),
    ],
)
def test_an_exact_answer_is_the_whole_reference(output, ordered, expected):
    asked = Sample("multivalue", 0, (Turn("?", ("11", "22"), "The codes are", "The codes are 11, 22.", ordered),))
    assert find_task("multivalue").exact(output, asked) == expected


def test_a_task_draws_the_samples_of_its_seeds(tokenizer):
    task = find_task("multikey").opened(256, tokenizer)
    assert task.samples(77, 2) == [make("multikey", SEED, 256, tokenizer), make("multikey", SEED + 1, 256, tokenizer)]
    with pytest.raises(ValueError, match="call opened"):
        find_task("multikey").samples(0, 1)


def test_some_tasks_have_several_questions_and_one_needs_them():
    tasks = list_tasks("text")
    assert [task.name for task in tasks if task.several_turns] == ["kvturns", "laterneedle", "slots", "tagged"]
    assert [task.name for task in tasks if not task.single_turn] == ["laterneedle"]


def test_errors_name_what_is_allowed(tokenizer):
    with pytest.raises(ValueError, match="multikey"):
        make("multikeys", 0, 512, tokenizer)
    with pytest.raises(ValueError, match="tokens=64"):
        make("single", 0, 64, tokenizer)
    with pytest.raises(ValueError, match="reference"):
        find_task("single").score("x", Sample("single", 0, (Turn("?", ()),)))
