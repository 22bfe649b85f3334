"""Documents as users write them: needles stay whole."""

import random

from laconic.tasks.text.variety import decorate, made_up


def test_words_are_made_up_by_the_seed():
    words = {made_up(random.Random(seed)) for seed in range(200)}
    assert len(words) > 190 and all(4 <= len(word) <= 9 and word.isalpha() for word in words)
    assert made_up(random.Random(5)) == made_up(random.Random(5))


def test_needles_are_decorated_and_stay_whole():
    needles, hay = ["The code is 5.", "The key is 7."], ["    indented", "plain"]
    seen = set()
    for seed in range(60):
        found, around = decorate(random.Random(seed), needles, hay)
        assert [line.lstrip("\n-*> ") for line in found] == needles and len(around) == len(hay)
        assert around[0] in ("    indented", "- indented") and around[1] == "plain"
        seen |= {line[:2] for line in found}
    assert {"- ", "* ", "> ", "Th"} <= seen
