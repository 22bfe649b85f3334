"""Facts without a rule: each its own question, the same answer every time."""

from helpers.thinking import TOKENIZER

from laconic.tasks.reasoning.recall import Recall, fact


def test_every_fact_has_a_question_of_its_own_that_the_tokenizer_can_write():
    facts = [fact(i) for i in range(2000)]
    assert len({question for question, _ in facts}) == 2000 and facts == [fact(i) for i in range(2000)]
    assert all(0 <= int(answer) < 100 for _, answer in facts)
    ids = TOKENIZER([question + answer for question, answer in facts])["input_ids"]
    assert not any(TOKENIZER.unk_token_id in row for row in ids)


def test_answers_have_no_rule_in_them():
    answers = [fact(i)[1] for i in range(2000)]
    assert len(set(answers)) == 100 and max(map(answers.count, set(answers))) < 45


def test_an_answer_stands_alone_after_the_mark():
    task = Recall(facts=3)
    sample, answer = task.sample(2), fact(2)[1]
    assert task.score(f"###{answer}", sample) == 1 and task.score(f"3+4=7;###{answer}", sample) == 1
    assert task.score(answer, sample) == 0 and task.score(f"###{answer}1", sample) == 0
    assert task.numbers(0, 100) == range(3)
