"""No thinking: the mark is the first token."""

from helpers.thinking import MARK, TOKENIZER, answered, asked, tiny_thinker

import laconic


def test_the_answer_follows_the_prompt_and_the_mark():
    import torch

    model, ids = tiny_thinker(), asked(2)
    with laconic.compress(model, "no_thought", tokenizer=TOKENIZER):
        said = answered(model, ids)
    assert [row[0] for row in said] == [MARK, MARK]
    marked = torch.cat([ids, torch.full((2, 1), MARK)], 1)
    assert [row[1:] for row in said] == answered(model, marked, 11)
