"""Comparison at equal FLOPs, the hard part, and the tables, on made-up rows."""

import io

import pytest
from helpers.image_tools import made_up
from rich.console import Console

from laconic.bench.comparison import comparisons
from laconic.bench.report import report
from laconic.bench.summary import equal_cost, summarise
from laconic.bench.table import markdown, rich_table, sections

# (method, keep, FLOPs of 1,000, right answers of 10)
RUNS = [
    ("none", 1.0, 1000, 10),
    ("random_visual", 0.5, 600, 8),
    ("random_visual", 0.25, 400, 4),
    ("pool", 0.5, 600, 9),
    ("good", 0.5, 600, 9),
    ("good", 0.3, 450, 9),
    ("good", 0.1, 200, 5),
    ("large", 0.9, 900, 10),
]


def rows(hard=lambda number: number < 4):
    """The first `right` of ten samples are answered well."""
    return [
        made_up(method, keep, number, float(number < right), flops=flops, hard=hard(number))
        for method, keep, flops, right in RUNS
        for number in range(10)
    ]


@pytest.fixture(scope="module")
def lines():
    return {(line.method, line.keep): line for line in summarise(rows())}


def test_references_come_first_and_budgets_descend(lines):
    assert list(lines) == [(method, keep) for method, keep, _, _ in RUNS]


def test_at_the_cost_of_a_budget_the_reference_is_that_budget(lines):
    gain = lines["good", 0.5].gains["random_visual"]
    assert gain.against == "random_visual 0.5" and gain.fair and gain.interval.mean == pytest.approx(0.1)
    assert lines["good", 0.5].gains["pool"].interval.mean == pytest.approx(0)


def test_between_two_budgets_it_lies_on_the_straight_line(lines):
    """450 of 400..600: a quarter of the way from 4 to 8 right answers, so 5 of 10."""
    gain = lines["good", 0.3].gains["random_visual"]
    assert gain.against == "random_visual 0.25 to 0.5" and gain.fair
    assert gain.interval.mean == pytest.approx(0.9 - 0.5)


def test_the_cost_is_that_of_the_model_and_of_the_method():
    """400 and 200 of its own stand at 600 of 400..600, not at 400."""
    dear = [made_up("dear", 0.25, number, float(number < 9), flops=400, own=200) for number in range(10)]
    line = next(line for line in summarise([*rows(), *dear]) if line.method == "dear")
    assert line.cost == line.flops_share == pytest.approx(0.6) and line.flops_whole
    assert line.gains["random_visual"].interval.mean == pytest.approx(0.9 - 0.8)
    assert "| 60.0 % |" in markdown([line])


def test_rows_that_lack_the_method_s_part_say_that_it_is_missing():
    old = [made_up("good", 0.5, number, 1.0, flops=600) for number in range(10)]
    del old[3]["method_flops"]
    (line,) = summarise(old)
    assert not line.flops_whole and "| ≥ 60.0 % |" in markdown([line])


def test_above_its_budgets_it_leads_to_the_uncompressed_model(lines):
    """900 of 600..1000: three quarters of the way from 8 to 10."""
    gain = lines["large", 0.9].gains["random_visual"]
    assert gain.against == "random_visual 0.5 to all" and gain.fair
    assert gain.interval.mean == pytest.approx(1 - 0.95)


def test_below_its_budgets_nothing_is_extrapolated(lines):
    gain = lines["good", 0.1].gains["random_visual"]
    assert gain.against == "random_visual 0.25" and not gain.fair
    assert gain.interval.mean == pytest.approx(0.5 - 0.4)


def test_interpolation_is_by_sample(lines):
    curve = [lines["random_visual", 0.5], lines["random_visual", 0.25]]
    scores, _, _ = equal_cost(0.45, curve)
    assert [scores["colour", i] for i in range(10)] == pytest.approx([1] * 4 + [0.25] * 4 + [0] * 2)


def test_no_gain_over_itself_or_over_what_did_not_run(lines):
    assert not lines["none", 1.0].gains
    assert set(lines["random_visual", 0.5].gains) == {"pool"} and set(lines["good", 0.5].gains) == {"random_visual", "pool"}


def test_the_hard_part_has_its_own_score(lines):
    hard = lines["random_visual", 0.25].hard
    assert hard.tasks["colour"].mean == 1 and hard.samples == 4 and hard.mean.mean == 1
    easy = summarise(rows(hard=lambda number: False))[0].hard
    assert easy.tasks == {} and easy.mean is None and easy.samples == 0


def test_the_hard_part_is_in_the_json(lines):
    assert lines["good", 0.5].as_dict()["hard"]["samples"] == 4


def test_tasks_have_their_own_figures():
    """Of four made-up answers "yes", two are right."""
    given = [made_up("none", 1.0, i, float(i < 2), task="pope", category="random") for i in range(4)]
    for row in given:
        row |= {"output": ["yes"], "answers": [["yes" if row["score"] else "no"]]}
    (line,) = summarise(given)
    assert line.figures["pope"]["accuracy"] == 50 and line.as_dict()["figures"]["pope"]["yes ratio"] == 100


def test_rows_of_a_task_that_is_not_known_here_are_summarised():
    (line,) = summarise([made_up("none", 1.0, 0, 1.0, task="theirs")])
    assert line.tasks["theirs"].mean == 1 and line.figures == {}


def test_the_table_shows_scores_hard_part_and_gains():
    text = markdown(summarise(rows()))
    head = next(line for line in text.splitlines() if line.startswith("| method"))
    assert head.startswith("| method | q | asked | kept | prefill FLOPs | mean | hard | vs random_visual | vs pool")
    row = next(line for line in text.splitlines() if line.startswith("| good |  | 0.3"))
    assert "| 45.0 % |" in row and "| 90 / 100 |" in row and "+40 [" in row
    assert "†" in next(line for line in text.splitlines() if line.startswith("| good |  | 0.1"))
    assert comparisons()["image"].table.foot in text and comparisons()["text"].table.foot not in text


@pytest.mark.parametrize("width", [80, 100, 160])
def test_a_terminal_gets_what_it_has_room_for(width):
    lines = summarise(rows())
    file = io.StringIO()
    Console(file=file, width=width).print(rich_table(lines, sections(lines)[0], width))
    assert "prefill" in file.getvalue() and "random_visual" in file.getvalue()


def test_the_report_stands_on_flops():
    html = report(summarise(rows()), rows())
    assert "prefill FLOPs of uncompressed" in html and "KV bytes of uncompressed" not in html
    assert "prefill FLOPs that a method really cost" in html
