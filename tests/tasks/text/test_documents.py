"""Samples are deterministic, of the asked length, from documents that nothing is trained on, and hold what is asked."""

import pytest

from laconic.prompts.text import build
from laconic.tasks import find_task
from laconic.tasks.task import EVALUATION_SEED
from laconic.tasks.text import corpus
from laconic.tasks.text.documents import CONTINUATION_TOKENS

SEED = EVALUATION_SEED + 5
LENGTHS = (256, 1024, 2048)


def sample(name, tokens, tokenizer, number=SEED):
    return find_task(name).opened(tokens=tokens, tokenizer=tokenizer).sample(number)


@pytest.mark.parametrize("name", ["facts", "continuation"])
def test_same_number_same_sample(name, tokenizer):
    assert sample(name, 512, tokenizer) == sample(name, 512, tokenizer)
    assert sample(name, 512, tokenizer).context != sample(name, 512, tokenizer, SEED + 1).context


@pytest.mark.parametrize("tokens", LENGTHS)
def test_prompts_of_facts_have_the_length(tokens, tokenizer):
    for number in range(SEED, SEED + 4):
        made = sample("facts", tokens, tokenizer, number)
        longest = max(
            build(tokenizer, made.context, turn.question, answer_prefix=turn.prefix).tokens
            + len(tokenizer.encode(turn.answers[0], add_special_tokens=False))
            for turn in made.turns
        )
        assert tokens - 30 <= longest <= tokens


@pytest.mark.parametrize("held_out", [False, True])
@pytest.mark.parametrize("name", ["facts", "continuation"])
def test_documents_are_apart_from_those_of_training(name, held_out, tokenizer):
    made = sample(name, 512, tokenizer, SEED if held_out else 5)
    facts = {turn.gold for turn in made.turns}
    lines = [line for line in made.context.split("\n") if line not in facts]
    own, other = (set(corpus.lines("prose", held)) for held in (held_out, not held_out))
    assert sum(line in own for line in lines) >= len(lines) - 1  # the last one may be cut
    assert any(line not in other for line in lines)


def test_every_fact_is_a_line_of_its_own(tokenizer):
    made = sample("facts", 1024, tokenizer)
    lines = made.context.split("\n")
    assert all(lines.count(turn.gold) == 1 for turn in made.turns)


@pytest.mark.parametrize("tokens", LENGTHS)
def test_a_continuation_is_what_follows(tokens, tokenizer):
    made, source = sample("continuation", tokens, tokenizer), corpus.lines("prose", True)
    lines = made.context.split("\n") + made.turns[0].gold.removeprefix("\n").split("\n")
    starts = [i for i, line in enumerate(source) if line == lines[0]]
    doubled = source + source
    assert any(tuple(lines) == doubled[i : i + len(lines)] for i in starts)
    context, gold = (len(tokenizer.encode(text, add_special_tokens=False)) for text in (made.context, made.turns[0].gold))
    assert gold <= CONTINUATION_TOKENS and context <= tokens - CONTINUATION_TOKENS
    assert context > tokens - CONTINUATION_TOKENS - 60


def test_modes():
    assert find_task("facts").fits("later") and find_task("facts").fits("in view")
    assert find_task("continuation").fits("later") and not find_task("continuation").fits("in view")


def test_a_task_must_be_opened():
    with pytest.raises(ValueError, match="facts: a length and a tokenizer are needed"):
        find_task("facts").sample(SEED)
