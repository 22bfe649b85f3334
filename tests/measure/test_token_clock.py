"""When tokens come out, and the text that they make."""

import time

import torch

from laconic.measure.token_clock import TokenClock, Words


class Letters:
    def decode(self, ids, skip_special_tokens):
        assert skip_special_tokens
        return "".join(chr(i) for i in ids)


def test_the_first_and_the_last_token_are_noted_and_nothing_is_stopped(monkeypatch):
    now = iter([0.0, 4.0, 6.0])  # a clock may start at 0
    monkeypatch.setattr(time, "perf_counter", lambda: next(now))
    calls = []
    clock = TokenClock(lambda: calls.append(clock.last))
    assert clock.first == clock.last == 0.0 and not calls
    for _ in range(3):
        assert clock(torch.zeros(2, 5), None).tolist() == [False, False]
    assert (clock.first, clock.last, calls) == (0.0, 6.0, [0.0])


def test_words_are_given_when_they_are_complete():
    pieces = []
    words = Words(Letters(), pieces.append)
    words.put(torch.tensor([[1, 2]]))  # the prompt
    for letter in "ab cd":
        words.put(torch.tensor([ord(letter)]))
    assert pieces == ["ab "]
    words.end()
    assert pieces == ["ab ", "cd"]
