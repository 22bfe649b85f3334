"""A host for explainability-guided compression whose answer is known: a run of object tokens, most of one content, among
plain ones, and single tokens that get more attention in layer 0 than any object and say nothing.

Layer 0 looks at attractors (4), objects (2) and the rest (0 in logits) and moves nothing. Layer 1 looks at the objects of
the asked kind and brings their contents to the last token, which names the most frequent one.
"""

import torch
from torch import Tensor
from transformers import LlavaForConditionalGeneration

from helpers.planted_vlm import attends, carries, planted, prompt

SIDE, OBJECTS, ATTRACTORS, CONTENTS = 8, 12, 10, 4
ASK, ASK_OTHER, ANSWER = 5, 6, 10
PLAIN, ATTRACTOR, OBJECT, OTHER = 0, 1, 2, 3


def host() -> LlavaForConditionalGeneration:
    """Two layers; `ASK` asks about objects, `ASK_OTHER` about those of the other kind."""
    model = planted(SIDE)
    words = model.model.language_model.embed_tokens.weight
    words[2, 50], words[ASK, 32], words[ASK_OTHER, 33] = 7.0, 7.0, 7.0
    for number, (asks, found) in enumerate(((32, OBJECT), (33, OTHER))):
        attends(model, 0, number, asks, found, 0.25)
        attends(model, 0, number, asks, ATTRACTOR, 0.5)
        attends(model, 1, number, asks, found, 1.0)
    for c in range(CONTENTS):
        carries(model, 1, c, 8 + c, 40 + c)
        model.lm_head.weight[ANSWER + c, 40 + c] = 1.0
    return model


def images(count: int, seed: int, objects: int = OBJECTS) -> tuple[Tensor, Tensor, Tensor]:
    """`count` images [count, 64, 32], the most frequent content of their objects [count], and where those are [count, 64].

    A third of the objects have one content, those of the others are drawn; attractors stand alone. Objects of the other
    kind are a second run.
    """
    made = torch.Generator().manual_seed(seed)
    n = SIDE * SIDE
    vectors, objects_at = torch.zeros(count, n, 32), torch.zeros(count, n, dtype=torch.bool)
    answers = torch.randint(CONTENTS, (count,), generator=made)
    for b in range(count):
        kinds = torch.zeros(n, dtype=torch.long)
        contents = torch.randint(CONTENTS, (n,), generator=made)
        first = int(torch.randint(n // 2 - objects, (1,), generator=made))
        second = n // 2 + int(torch.randint(n // 2 - objects, (1,), generator=made))
        if torch.rand(1, generator=made) < 0.5:
            first, second = second, first
        kinds[first : first + objects], kinds[second : second + objects] = OBJECT, OTHER
        same = first + torch.randperm(objects, generator=made)[: objects // 3]
        contents[same] = answers[b]
        for at in torch.randperm(n, generator=made).tolist():
            near = kinds[max(0, at - 2) : at + 3]
            if (kinds == ATTRACTOR).sum() < ATTRACTORS and bool((near == PLAIN).all()):
                kinds[at] = ATTRACTOR
        vectors[b, torch.arange(n), kinds] = 1.0
        vectors[b, torch.arange(n), 8 + contents] = 1.0
        objects_at[b] = kinds == OBJECT
    return vectors, answers, objects_at


class Toy:
    """The toy's questions, as `laconic.methods.tokens.explainability.fit` asks them, and its tokenizer."""

    pad_token_id = None

    def __init__(self, seed: int, count: int = 400):
        self.vectors, self.answers, self.objects = images(count, seed)

    def ask(self, number: int):
        return prompt(self.vectors[number][None], SIDE, [ASK]), str(int(self.answers[number]))

    def decode(self, ids: list[int], skip_special_tokens: bool = True) -> str:
        return str(ids[0] - ANSWER)
