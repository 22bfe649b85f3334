"""The parts of the panel that put many figures into one line."""

from types import SimpleNamespace

import pytest

from laconic.cli.panel import (
    after_mark,
    asked,
    by_layer,
    decode_flops_per_token,
    entries,
    in_words,
    length,
    more_flops,
    shown,
    thought,
    timed,
)
from laconic.decode.marks import Thinking
from laconic.measure.stats import Stats
from laconic.method import create_method


def test_neighbouring_layers_that_agree_are_taken_together():
    assert by_layer({0: 144, 1: 144, 2: 72.4, 4: 72.4}) == "144 in layers 0-1, 72 in layer 2, 72 in layer 4"
    assert by_layer({3: 1000.0, 1: 5}) == "5 in layer 1, 1,000 in layer 3" and by_layer({}) == ""


def test_entries_are_bars_of_their_share():
    assert entries([(0, 0.0, 0), (10, 35.0, 60), (70, 70.0, 70)], 70) == "min 0, mean 35.0, max 70  ▁▅█"


def test_files_are_named_by_their_last_part():
    image = SimpleNamespace(width=9, height=6)
    frames = [SimpleNamespace(source=f"/a/{i}\x1b.png", number=i, of=1 + 3 * (i == 1), image=image) for i in range(4)]
    assert shown(frames[:1]) == "1: 0\ufffd.png 9 x 6"
    assert shown(frames) == "4: 0\ufffd.png 9 x 6, 1\ufffd.png frame 1 of 4 9 x 6, 2\ufffd.png 9 x 6, ..."


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("snapkv:keep=0.0995", "9.95%"),
        ("snapkv:keep=1", "100%"),
        ("snapkv:tokens=1000", "1,000 entries per head"),
        ("snapkv:bytes=2048", "2.0 KiB"),
        ("gear", "own parameters"),
    ],
)
def test_what_was_asked_is_what_was_given(spec, expected):
    assert asked(create_method(spec)) == expected


def run(finish="eos", **final):
    answer = SimpleNamespace(ids=list(range(12)), finish=finish)
    return SimpleNamespace(answer=answer, final=Stats(**final))


def test_decoding_is_told_per_token_and_answers_by_their_length():
    assert decode_flops_per_token(run(decode_flops=110, tokens_out=11)) == 10
    assert decode_flops_per_token(run(decode_flops=110, method_decode_flops=22, tokens_out=11)) == 12
    assert decode_flops_per_token(run(decode_flops=0, tokens_out=0)) is None
    assert (
        length(run()) == "12"
        and length(run(finish="length")) == "12, cut at the limit"
        and length(run(finish="stop")) == "12"
    )


def test_one_run_alone_is_not_said_to_be_first():
    alone, first, fastest = (
        timed(SimpleNamespace(timed=runs), beside) for runs, beside in ((1, False), (1, True), (2, True))
    )
    assert alone.startswith("times: of one run;") and "compressed one first" in first and "fastest of 2 runs" in fastest


def test_thinking_is_told_by_steps_and_the_answer_by_its_tokens():
    def told(*counts):
        one = run()
        one.thinking = Thinking(*counts) if counts else None
        return thought(one), after_mark(one)

    assert told(0, 12, 3, True) == ("12 written", "3")
    assert told(1000, 3, 2, True) == ("1,000 latent, 3 written", "2")
    assert told(0, 7, 0, False) == ("7 written", "none: the thinking did not end")
    assert told() == ("-", "-")


def test_own_passes_of_a_method_are_a_cost():
    assert more_flops(run(prefill_flops=250, prefill_flops_full=100)) == 150
    assert more_flops(run(prefill_flops=80, method_flops=30, prefill_flops_full=100)) == 10
    assert more_flops(run(prefill_flops=50, prefill_flops_full=100)) == 0


def test_the_mode_is_told_in_words():
    def told(later, *names, memory=None):
        methods = [create_method(name) for name in names]
        return in_words(SimpleNamespace(later=later, methods=methods, request=SimpleNamespace(memory=memory)))

    assert told(True, "snapkv") == "the context was compressed before the question was known"
    assert told(False, "snapkv", "kivi").endswith("; the method looks at the question")
    assert told(False, "keydiff").endswith("; the method does not look at the question")
    assert told(False) == "context and question were read together"
    apart = "the context was compressed by itself; the question was read after what stands for it"
    assert told(False, memory="from a file") == told(False, "icae") == told(False, "snapkv", memory="from a file") == apart
