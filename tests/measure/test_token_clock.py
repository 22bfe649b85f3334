"""When tokens come out, and the text that they make."""

import time

import torch

from laconic.measure.token_clock import TokenClock, Words


class Letters:
    def decode(self, ids, skip_special_tokens):
        assert skip_special_tokens
        return "".join(chr(i) for i in ids)


def test_the_prompt_is_no_token_of_the_answer(monkeypatch):
    now = iter([0.0, 4.0, 6.0])  # a clock may start at 0
    monkeypatch.setattr(time, "perf_counter", lambda: next(now))
    calls = []
    clock = TokenClock(lambda: calls.append(clock.last))
    clock.put(torch.zeros(2, 5))
    assert clock.first == clock.last == 0.0 and not calls
    for _ in range(3):
        clock.put(torch.zeros(2))
    clock.end()
    assert (clock.first, clock.last, calls) == (0.0, 6.0, [0.0])


def test_words_are_given_when_they_are_complete():
    pieces = []
    clock = TokenClock(lambda: None, Words(Letters(), pieces.append))
    clock.put(torch.tensor([[1, 2]]))
    for letter in "ab cd":
        clock.put(torch.tensor([ord(letter)]))
    assert pieces == ["ab "]
    clock.end()
    assert pieces == ["ab ", "cd"]
