"""`random_text` draws words uniformly."""

from collections import Counter

import laconic

TEXT = " ".join(f"w{i}" for i in range(20))


def test_seeds_draw_differently_and_again_the_same():
    one, two = (laconic.shorten(TEXT, laconic.RandomText(keep=0.5, seed=s)).kept for s in (1, 2))
    assert one != two and one == laconic.shorten(TEXT, laconic.RandomText(keep=0.5, seed=1)).kept


def test_every_word_is_as_likely():
    drawn = Counter(i for seed in range(400) for i in laconic.shorten(TEXT, laconic.RandomText(keep=0.25, seed=seed)).kept)
    assert sum(drawn.values()) == 400 * 5 and all(60 < drawn[i] < 140 for i in range(20))
