"""The iterative token filter against its definition, done slowly."""

import pytest
from helpers.text_tools import source_of

from laconic.shortening.windows import filtered


class Fixed:
    """Scores by token id, and notes what is kept."""

    def __init__(self):
        self.windows, self.stayed = [], []

    def score(self, window):
        self.windows.append(list(window))
        return [float(token * 7919 % 101) for token in window]

    def keep(self, tokens):
        self.stayed.append(list(tokens))


def run(source, window=20, share=0.3, **options):
    judge, order = Fixed(), range(len(source.pieces))
    return filtered(source, order, [share] * len(order), judge, window, **options), judge


def test_every_window_keeps_its_best_as_many_as_are_due():
    source = source_of("abcdefgh " * 30)
    kept, judge = run(source)
    total = due = 0
    for window, stayed in zip(judge.windows, judge.stayed, strict=True):
        due += 0.3 * len(window)
        order = sorted(range(len(window)), key=lambda i: (-(window[i] * 7919 % 101), i))
        best = sorted(order[: round(due) - total])
        assert stayed == [window[i] for i in best]
        total += len(stayed)
    assert sum(map(len, judge.stayed)) == len(kept) == round(0.3 * len(source.pieces))
    assert [token for window in judge.windows for token in window] == [i for ids in source.pieces.ids for i in ids]


@pytest.mark.parametrize("window", [1, 7, 200, 5000])
@pytest.mark.parametrize("share", [0.1, 0.37, 0.9])
def test_the_budget_is_met_whatever_the_window(window, share):
    source = source_of()
    kept, _ = run(source, window, share)
    assert source.pieces.size(kept) == pytest.approx(share * sum(source.pieces.sizes), rel=0.02)
    assert kept == sorted(set(kept))


def test_forced_pieces_stay_and_later_windows_pay_for_them():
    forced = frozenset(range(10, 30))
    source = source_of(forced=forced)
    kept, _ = run(source, 20, 0.2)
    assert forced <= set(kept) and source.pieces.size(kept) == pytest.approx(0.2 * sum(source.pieces.sizes), rel=0.02)


def test_shares_may_differ():
    source = source_of("abcdefgh " * 40)
    count = len(source.pieces)
    half = count // 2
    kept = filtered(source, range(count), [0.8] * half + [0.1] * (count - half), Fixed(), 5000)
    assert sum(i < half for i in kept) == pytest.approx(0.8 * half, abs=1)
    assert sum(i >= half for i in kept) == pytest.approx(0.1 * (count - half), abs=1)


def test_the_published_threshold_looks_at_what_was_kept_before():
    source = source_of("abcdefgh " * 8)
    _, judge = run(source, 20, 0.3, quantile="prefix")
    earlier = []
    for window, stayed in zip(judge.windows, judge.stayed, strict=True):
        scores = [float(token * 7919 % 101) for token in window]
        pool = sorted([*earlier, *scores], reverse=True)
        limit = pool[max(0, int(len(pool) * 0.3) - 1)]
        assert stayed == [token for token, score in zip(window, scores, strict=True) if score > limit]
        earlier += [score for score in scores if score > limit]
