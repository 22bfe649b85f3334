"""StreamingLLM: four sinks, a window that slides; content does not matter."""

import pytest
import torch
from helpers.reference import chosen, left_padding, observe

import laconic
from laconic import StreamingLLM


@pytest.mark.parametrize("pad", [0, 5])
def test_sinks_and_the_newest_stay(pad):
    valid = None if pad == 0 else left_padding(23, pad, 0)
    selection = StreamingLLM().select(observe(n=23, valid=valid, targets=[9, 10]))
    for h in range(2):
        assert chosen(selection, 0, h) == [pad + i for i in range(4)] + list(range(18, 23))
        assert chosen(selection, 1, h) == [0, 1, 2, 3, *range(17, 23)]


def test_content_does_not_matter():
    assert torch.equal(StreamingLLM().rank(observe(seed=0)), StreamingLLM().rank(observe(seed=1)))


def test_equals_the_scores_by_place():
    """score = 1, but 0 for n_sink .. n_sink + (n - n_keep) - 1."""
    n, keep = 31, 12
    score = [0 if 4 <= j < 4 + n - keep else 1 for j in range(n)]
    want = [j for j in range(n) if score[j]]
    assert chosen(StreamingLLM().select(observe(n=n, targets=[keep] * 2)), 1, 1) == want


@pytest.mark.parametrize("tokens", [12, 30])
def test_the_window_slides_at_every_step(llama, prompt, tokens):
    n, steps = 25, 9
    with laconic.compress(llama, StreamingLLM(tokens=tokens)) as session:
        llama(prompt(2, n))
        for step in range(steps):
            llama(prompt(2, 1, seed=step), past_key_values=session.cache)
            total = n + step + 1
            want = list(range(total)) if total <= tokens else [0, 1, 2, 3, *range(total - tokens + 4, total)]
            for layer in (0, 3):
                assert session.kept(layer, 1, 1).tolist() == want
    assert session.cache.nbytes == 4 * 2 * 2 * min(tokens, n + steps) * 2 * 8 * 4
