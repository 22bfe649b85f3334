"""SnapKV: score, forced window, counts, short prompts."""

import pytest
import torch
from helpers.reference import chosen, observe, slow_top
from helpers.slow_scores import slow_window_scores

import laconic
from laconic import SnapKV


@pytest.mark.parametrize("pooling", ["avg", "max"])
def test_choice_equals_the_loop(pooling):
    seen = observe(n=41, targets=[13, 13])
    method = SnapKV(window=4, kernel=5, pooling=pooling)
    scores = slow_window_scores(seen, 4, 5, pooling)
    selection = method.select(seen)
    for b in range(2):
        for h in range(2):
            want = [*slow_top(scores[b, h, :-4].tolist(), 13 - 4), 37, 38, 39, 40]
            assert chosen(selection, b, h) == want


def test_the_papers_defaults():
    assert (SnapKV().window, SnapKV().kernel, SnapKV().pooling, SnapKV().keep) == (32, 5, "avg", 0.25)


@pytest.mark.parametrize("keep", [0.5, 0.3, 0.11])
def test_every_head_keeps_its_share_and_the_window(llama, prompt, keep):
    n = 67
    with laconic.compress(llama, SnapKV(keep=keep, window=8)) as session:
        llama(prompt(2, n))
    count = int(n * keep)
    recent = min(8, count // 2)
    for layer in range(4):
        for head in range(2):
            for row in range(2):
                kept = session.kept(layer, head, row).tolist()
                assert len(kept) == count
                assert kept[-recent:] == list(range(n - recent, n))


def test_only_the_queries_of_the_window_count():
    seen, other = observe(n=31), observe(n=31)
    other.queries[:, :, :-4] = torch.randn(2, 4, 27, 8)
    torch.testing.assert_close(SnapKV(window=4).score(seen), SnapKV(window=4).score(other))
    third = observe(n=31)
    third.queries[:, :, -1] *= -1
    assert not torch.allclose(SnapKV(window=4).score(seen), SnapKV(window=4).score(third), atol=1e-4)


def test_a_prompt_within_the_budget_passes_through(llama, prompt):
    ids = prompt(1, 20)
    want = llama.generate(ids, max_new_tokens=5, do_sample=False)
    with laconic.compress(llama, SnapKV(tokens=20)) as session:
        assert torch.equal(llama.generate(ids, max_new_tokens=5, do_sample=False), want)
    assert session.stats.entries == [24.0] * 4
