"""Samples are deterministic, of the asked length, hold their answers and distractors, and are scored as RULER
does.
"""

import random
from itertools import chain, pairwise

import pytest

from laconic.tasks.text import corpus
from laconic.tasks.text.needles import chains, merge_lines, multivalue, numbers, several, singles
from laconic.tasks.text.retrieval import (
    EVALUATION_SEED,
    TASKS,
    gold_ids,
    make,
    messages,
    needles_at,
    prompt_ids,
    score,
    turn_ids,
)
from laconic.testbed.mixture import Mixture

LENGTHS = (128, 512, 1024, 2048)
SEED = EVALUATION_SEED + 77


def joined(parts):
    return list(chain.from_iterable(parts))


def whole_chat(sample, tokenizer):
    ids = joined(prompt_ids(sample, tokenizer)) + gold_ids(sample, tokenizer)
    for turn in range(1, len(sample.turns)):
        ids += turn_ids(sample, tokenizer, turn) + gold_ids(sample, tokenizer, turn)
    return ids


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
        assert score(task, turn.gold, turn.answers) == 1.0
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


def test_training_refuses_evaluation_seeds(tokenizer):
    mixture = Mixture(tokenizer)
    with pytest.raises(ValueError, match="reserved for evaluation"):
        mixture.task_chat(EVALUATION_SEED, 512)
    with pytest.raises(ValueError, match="seed=-1"):
        mixture.task_chat(-1, 512)


@pytest.mark.parametrize("tokens", LENGTHS)
def test_training_chats_fit_and_supervise_real_tokens(tokens, tokenizer):
    mixture = Mixture(tokenizer)
    for seed in range(40):
        example = mixture.task_chat(seed, tokens)
        assert len(example.ids) <= tokens
        assert example.targets
        for position, (accepted, weight, _) in example.targets.items():
            assert example.ids[position] in accepted
            assert weight > 0


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
    assert score("multikey", output, answers) == expected


def test_errors_name_what_is_allowed(tokenizer):
    with pytest.raises(ValueError, match="multikey"):
        make("multikeys", 0, 512, tokenizer)
    with pytest.raises(ValueError, match="tokens=64"):
        make("single", 0, 64, tokenizer)
    with pytest.raises(ValueError, match="answers"):
        score("single", "x", ())
    with pytest.raises(ValueError, match="turn=1"):
        turn_ids(make("single", 0, 128, tokenizer), tokenizer, 1)


@pytest.mark.parametrize("task", TASKS)
def test_context_ids_are_a_prefix_that_no_question_changes(task, tokenizer):
    sample = make(task, SEED, 512, tokenizer)
    text = tokenizer.apply_chat_template(messages(sample), tokenize=False, add_generation_prompt=True)
    context, question = prompt_ids(sample, tokenizer, prefix=False)
    assert context + question == tokenizer.encode(text, add_special_tokens=False)
    assert tokenizer.decode(context, skip_special_tokens=False) == "<s><|user|>" + sample.context
    with_prefix = prompt_ids(sample, tokenizer)
    assert with_prefix[0] == context
    assert with_prefix[1][: len(question)] == question


def test_turns_appended_one_by_one_give_the_chat(tokenizer):
    sample = make("kvturns", SEED, 512, tokenizer)
    last = len(sample.turns) - 1
    full = joined(prompt_ids(sample, tokenizer, last)) + gold_ids(sample, tokenizer, last)
    assert whole_chat(sample, tokenizer) == full


def test_system_turn_comes_first(tokenizer):
    chat = messages(make("single", SEED, 128, tokenizer), system="Be brief.")
    assert [m["role"] for m in chat] == ["system", "user"]


def test_golden_needles():
    rng = random.Random(0)
    block = singles(rng, ["falcon", "river"], ["4815263", "1112223"])
    assert block.groups == [["The code for falcon is 4815263."], ["The code for river is 1112223."]]
    both = several(block.turns)
    assert both.question == "What are the codes for falcon and river?"
    assert both.gold == "The code for falcon is 4815263. The code for river is 1112223."
    listed = multivalue(rng, ["owl"], ["1000000", "2000000"]).turns[0]
    assert (listed.gold, listed.ordered) == ("The codes for owl are 1000000, 2000000.", False)
    chain = chains(rng, ["a", "b", "c"], ["7000000"])
    assert chain.groups == [["Put 7000000 into a.", "Copy a into b.", "Copy b into c."]]
    assert chain.turns[0].gold == "The names that hold 7000000 are a, b, c."


def test_numbers_have_seven_digits_and_different_first_tokens():
    drawn = numbers(random.Random(3), 50)
    assert {len(value) for value in drawn} == {7}
    assert len({value[:3] for value in drawn}) == 50


def test_merged_lines_keep_the_order_of_each_group():
    merged = merge_lines(random.Random(1), [["a1", "a2", "a3"], ["b1", "b2"]])
    assert sorted(merged) == ["a1", "a2", "a3", "b1", "b2"]
    assert [m for m in merged if m[0] == "a"] == ["a1", "a2", "a3"]
