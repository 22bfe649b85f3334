import random

from laconic.tasks.text.needles import chains, merge_lines, multivalue, numbers, several, singles


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
