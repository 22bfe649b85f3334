"""Needle prompts: from training documents alone, the needle where it should be and found again."""

import random

import pytest

import laconic
from laconic.fit.needles import locate, trial, trials
from laconic.tasks.text import corpus


@pytest.fixture(scope="module")
def tokenizer():
    return laconic.load("testbed/lm")[1]


def test_a_grid_of_lengths_depths_and_needles(tokenizer):
    made = list(trials(tokenizer, (200, 300), depths=3, needles=2, seed=0))
    assert [t.length for t in made] == [200] * 6 + [300] * 6
    assert len({t.answer for t in made}) == 12
    assert [t.ids for t in trials(tokenizer, (200,), 3, 2, 0)] == [t.ids for t in made[:6]]
    assert [t.ids for t in trials(tokenizer, (200,), 3, 2, 1)] != [t.ids for t in made[:6]]


@pytest.mark.parametrize("depth", [0.0, 0.5, 1.0])
def test_length_depth_span_and_haystack(tokenizer, depth):
    held_out = set(corpus.lines("prose", held_out=True)) - set(corpus.lines("prose"))
    for seed in range(5):
        made = trial(random.Random(seed), tokenizer, 400, depth)
        assert 380 <= len(made.ids) <= 400
        assert tokenizer.decode([made.ids[j] for j in made.span]).strip("\n") == made.answer
        lines = tokenizer.decode(made.ids).split("\n")
        at = next(i for i, line in enumerate(lines) if made.answer in line)
        last = lines.index("", at)  # the question follows an empty line
        assert at / (last - 1) == pytest.approx(depth, abs=0.06)
        assert not held_out & set(lines[1 : lines.index("") if "" in lines else None])


def test_the_first_window_of_more_than_90_percent():
    assert locate([9, 1, 2, 3, 4, 9, 1, 2, 3, 4], [1, 2, 3, 4]) == [1, 2, 3, 4]
    twenty = list(range(20))
    assert locate([50, 99, *twenty[1:], 51], twenty) == list(range(1, 21))  # 19 of 20
    with pytest.raises(ValueError, match="not found"):
        locate([1, 2, 3, 9, 9, 9], [1, 2, 3, 4])


def test_too_short(tokenizer):
    with pytest.raises(ValueError, match="too few"):
        trial(random.Random(0), tokenizer, 20, 0.5)
