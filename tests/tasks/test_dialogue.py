"""Several questions about one thing."""

import random
from dataclasses import dataclass

from laconic.tasks.dialogue import different


@dataclass(frozen=True)
class Asked:
    text: str


def test_texts_differ_and_kinds_follow_their_weights():
    asking = {"a": lambda rng, n: Asked(f"a{rng.randrange(n)}"), "b": lambda rng, n: None, "c": lambda rng, n: Asked("c")}
    found = different(random.Random(0), asking, 4, 6, {"a": 1.0, "b": 1.0})
    texts = [x.text for x in found]
    assert 0 < len(texts) == len(set(texts)) <= 4 and all(text[0] == "a" for text in texts)
