"""Thinking is cut after a number of tokens."""

import pytest
from helpers.thinking import MARK, TOKENIZER, answered, asked, tiny_thinker

import laconic


@pytest.mark.parametrize("cap", [1, 4])
def test_the_mark_comes_after_exactly_that_many_tokens(cap):
    model, ids = tiny_thinker(), asked(3)
    with laconic.compress(model, f"truncate_thought:cap={cap}", tokenizer=TOKENIZER):
        said = answered(model, ids)
    assert [row.index(MARK) for row in said] == [cap] * 3
    assert [row[:cap] for row in said] == [row[:cap] for row in answered(model, ids)]


def test_a_cap_below_one_token_is_refused():
    with pytest.raises(ValueError, match="cap=0: thinking takes at least one token"):
        laconic.create_method("truncate_thought:cap=0")
