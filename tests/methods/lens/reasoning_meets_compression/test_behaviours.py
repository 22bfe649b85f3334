"""Where behaviours are in an answer: steps that begin with a word, and what is said without thinking."""

from helpers.thinking import MARK, TOKENIZER

from laconic.methods.lens.reasoning_meets_compression.behaviours import RECALLING, response


def found(text):
    ids = TOKENIZER.encode(text, add_special_tokens=False)
    pieces = [TOKENIZER.decode([i]) for i in ids]
    one = response([1, 2, 3], ids, pieces, (MARK,))
    assert one.ids == [1, 2, 3, *ids] and one.prompt == 3
    return {name: [TOKENIZER.decode(one.ids[s:e]) for s, e in spans] for name, spans in one.spans.items()}


def test_a_step_belongs_to_the_word_that_opens_it():
    said = found("3+4=7;7*2=14;wait 7-2=5;check 7-2=5;check 7-2=5;###5")
    assert said == {"backtracking": ["wait7-2=5;"], "checking": ["check7-2=5;"] * 2}


def test_a_last_step_may_be_open_and_the_answer_is_no_step():
    assert found("3+4=7;check 3+4") == {"checking": ["check3+4"]}
    assert found("3+4=7;###check") == {}


def test_an_answer_without_thinking_is_recalled():
    assert found("###52") == {RECALLING: ["52"]}
    assert found("###") == {} and found("52") == {}
