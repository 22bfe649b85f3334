"""Charts stand where the figures are, told by parsing the SVG."""

import math
import re
import xml.etree.ElementTree as ElementTree
from math import gcd

import pytest
from helpers.bench_tools import made_up

from laconic.bench.chart import COLOURS, HEIGHT, LEFT, MARKS, RIGHT, TOP, WIDTH, Scale, charts
from laconic.bench.grid import Grid
from laconic.bench.summary import summarise
from laconic.report.page import asset

GRID = Grid(("single", "multikey"), ("random", "snapkv:window=16"), (0.5, 0.1), (512,), ("aware",), 4)
LINES = summarise([made_up(cell, float(cell.seed % 2 or cell.method == "none")) for cell in GRID.cells()])


def parsed(lines):
    return ElementTree.fromstring(f"<div>{charts(lines)}</div>").find("div[@class='charts']").findall("svg")


def test_the_mean_and_every_task_have_a_chart():
    titles = [svg.find("text[@class='title']").text for svg in parsed(LINES)]
    assert titles == ["mean of the tasks", "single", "multikey"]
    one = summarise([made_up(cell, 1.0) for cell in GRID.changed(tasks=("single",)).cells()])
    assert [svg.find("text[@class='title']").text for svg in parsed(one)] == ["single"]


def test_marks_stand_at_achieved_cost_and_score_and_bars_are_intervals():
    scale = Scale.of(LINES)
    for svg in parsed(LINES):
        curves = svg.findall("g[@class='c0']") + svg.findall("g[@class='c1']")
        assert len(curves) == 2
        for curve in curves:
            shown = []
            for point in curve.findall("g"):
                told = re.fullmatch(
                    r"(.+): recall (.+) % \[(.+), (.+)\], KV (.+) %, asked keep=.+, kept .+", point.find("title").text
                )
                place = re.fullmatch(r"translate\((.+),(.+)\)", point.find("path[@class='mark']").get("transform"))
                bar = re.fullmatch(r"M(.+),(.+)V(.+)", point.find("path[@class='bar']").get("d"))
                mean, low, high, cost = (float(told[i]) for i in (2, 3, 4, 5))
                shown.append(cost)
                assert float(place[1]) == pytest.approx(scale.x(cost), abs=0.1) == pytest.approx(float(bar[1]), abs=0.1)
                assert float(place[2]) == pytest.approx(scale.y(mean), abs=0.1)
                assert float(bar[2]) == pytest.approx(scale.y(high), abs=0.2) and float(bar[3]) == pytest.approx(
                    scale.y(low), abs=0.2
                )
            assert shown == [10.0, 50.0]


def test_the_scale_is_logarithmic_and_inside_of_the_chart():
    scale = Scale(5.0)
    assert scale.x(5) == LEFT and scale.x(115) == pytest.approx(WIDTH - RIGHT)
    assert scale.x(20) - scale.x(10) == pytest.approx(scale.x(40) - scale.x(20)) and scale.x(10) > scale.x(5)
    assert TOP < scale.y(100) < scale.y(0) < HEIGHT and Scale.of(LINES).low == pytest.approx(7.0)
    assert math.isclose(scale.y(50), (scale.y(0) + scale.y(100)) / 2)


def test_the_uncompressed_model_is_a_line_with_a_band():
    ceiling = next(g for g in parsed(LINES)[0].findall("g") if g.find("rect") is not None)
    assert ceiling.find("title").text == "uncompressed: recall 100.0 % [100.0, 100.0]"
    assert f"M{LEFT},{Scale.of(LINES).y(100):.1f}h" in ceiling.find("path").get("d")


def test_each_method_is_once_in_the_legend_and_looks_its_own_way():
    legend = ElementTree.fromstring(f"<div>{charts(LINES)}</div>").find("div[@class='legend']")
    assert ["".join(span.itertext()) for span in legend] == ["random", "snapkv:window=16", "uncompressed"]
    assert gcd(COLOURS, len(MARKS)) == 1 and len(set(MARKS)) == len(MARKS)
    style = asset("bench.css")
    assert all(f".c{i} {{" in style for i in range(COLOURS)) and f".c{COLOURS} {{" not in style


def test_markup_in_names_is_escaped():
    cells = GRID.changed(methods=("random",)).cells()
    rows = [made_up(cell, 1.0) | {"method": "<b>&" if cell.method == "random" else "none"} for cell in cells]
    assert "<b>" not in charts(summarise(rows))
