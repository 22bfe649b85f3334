"""What is written of one sample: means over its turns, and figures of the moments that they belong to."""

from dataclasses import replace

import pytest

from laconic.bench.asking import Asked, Reply
from laconic.bench.grid import Place
from laconic.bench.rows import costs, scores
from laconic.engine.engine import Answer
from laconic.measure.stats import Stats
from laconic.tasks import Sample, Turn, find_task

PROMPT = Stats(
    tokens_in=50,
    kv_bytes=500,
    kv_bytes_full=1000,
    kv_bytes_allocated=520,
    prefill_flops=80,
    prefill_flops_full=90,
    method_flops=7,
)
CUT = replace(PROMPT, tokens_in=40, kv_bytes=400, asked=0.5, achieved=0.4)


def answer(text: str, ids: int, first: float, later: float, end: int, compress: float) -> Answer:
    final = replace(PROMPT, kv_bytes=end, compress_seconds=compress)
    return Answer(text, [1] * ids, "eos", first, later, CUT, PROMPT, final, 0, "process_peak", [], None)


ANSWERS = [answer(" 11.", 3, 0.5, 0.2, 510, 0.1), answer(" 33, 22.", 5, 0.3, 0.4, 530, 0.2)]


@pytest.fixture
def reply():
    turns = (
        Turn("a?", ("11",), "It is", "It is 11."),
        Turn("b?", ("22", "44"), "They are", "They are 22, 44."),
        Turn("c?", ("55",), "It is", "It is 55."),
    )
    place = Place("kvturns", 512, "turns", 7)
    return Reply(Asked(place, find_task("kvturns"), Sample("kvturns", 7, turns)), ANSWERS)


def test_scores_are_means_over_the_turns_that_were_asked(reply):
    assert scores(reply) == {
        "score": 0.75,
        "exact": 0.5,
        "turn_scores": [1.0, 0.5],
        "output": [" 11.", " 33, 22."],
        "answers": [["11"], ["22", "44"]],
    }


def test_bytes_and_flops_are_of_the_prompt_and_times_of_all_turns():
    found = costs(ANSWERS)
    assert (found["asked"], found["achieved"], found["tokens_compressed"], found["kv_bytes_compressed"]) == (
        0.5,
        0.4,
        40,
        400,
    )
    assert (found["tokens_prompt"], found["kv_bytes"], found["kv_bytes_full"], found["kv_bytes_allocated"]) == (
        50,
        500,
        1000,
        520,
    )
    assert (found["prefill_flops"], found["prefill_flops_full"], found["kv_bytes_end"]) == (80, 90, 530)
    assert found["method_flops"] == 7
    assert found["seconds_first_token"] == 0.5 and found["seconds_compress"] == 0.2
    assert found["seconds_per_token"] == pytest.approx(0.6 / 6) and found["tokens_out"] == [3, 5]
    assert costs([answer("", 1, 0.5, 0.0, 1, 0.0)])["seconds_per_token"] is None
