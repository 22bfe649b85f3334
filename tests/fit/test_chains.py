"""Problems with their chains as token ids."""

import random

import pytest
from helpers.thinking import MARK, TOKENIZER
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from laconic.fit.chains import IGNORED, Solutions, padded, recalled
from laconic.tasks.reasoning.recall import fact


def test_prompt_thought_and_answer_are_the_text_in_pieces():
    for solution in Solutions(TOKENIZER, {"terse": 1}, steps=(3,), kinds=("arithmetic",)).draw(random.Random(0), 8):
        prompt, thought, answer = (TOKENIZER.decode(x) for x in (solution.prompt, solution.thought, solution.answer))
        assert prompt.startswith("<s>Startwith") and prompt.endswith("Thinkbriefly.<think>")
        assert thought == "".join(f"{step.written};" for step in solution.problem.steps)
        assert answer == f"###{solution.problem.answer}</s>" and solution.answer[0] == MARK


def test_the_loss_is_taken_on_thought_and_answer():
    solutions = Solutions(TOKENIZER, {"terse": 1, "direct": 1}).draw(random.Random(1), 6)
    ids, labels = padded(solutions, TOKENIZER.pad_token_id)
    for row, wanted, solution in zip(ids, labels, solutions, strict=True):
        whole = solution.prompt + solution.thought + solution.answer
        assert row[: len(whole)].tolist() == whole and not row[len(whole) :].any()
        assert wanted[wanted != IGNORED].tolist() == solution.thought + solution.answer
        assert (wanted[: len(solution.prompt)] == IGNORED).all()


def test_equal_seeds_give_equal_batches():
    source = Solutions(TOKENIZER, {"verbose": 1})
    assert source.draw(random.Random(3), 4) == source.draw(random.Random(3), 4)


def test_a_tokenizer_without_the_mark_is_refused():

    plain = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel({"a": 0}, unk_token="a")))
    with pytest.raises(ValueError, match=r"no token '###': these problems are for a model of"):
        Solutions(plain, {"terse": 1})


def test_facts_are_asked_as_chats_and_the_first_ones_more_often():
    known = {TOKENIZER.decode(TOKENIZER.encode(question)): i for i, (question, _) in enumerate(map(fact, range(64)))}
    seen = []
    for one in recalled(TOKENIZER, random.Random(0), 64, 400):
        number = known[TOKENIZER.decode(one.prompt).removeprefix("<s>").removesuffix("<think>")]
        assert TOKENIZER.decode(one.answer) == f"###{fact(number)[1]}</s>" and one.thought == []
        seen.append(number)
    assert sum(x < 16 for x in seen) > 2 * sum(x >= 48 for x in seen) > 0
