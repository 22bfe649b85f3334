"""The report is one file that loads nothing and holds the figures."""

import re
from html.parser import HTMLParser

import pytest
from helpers.bench_tools import made_up

from laconic.bench.grid import Grid
from laconic.bench.report import missed, report
from laconic.bench.summary import summarise

GRID = Grid(("single", "multikey"), ("random", "snapkv:window=16"), (0.5, 0.1), (512,), ("aware", "agnostic"), 4)
ROWS = [made_up(cell, float(cell.seed % 2 or cell.method == "none")) for cell in GRID.cells()]


class Loads(HTMLParser):
    """Addresses that a browser would fetch by itself, and the text outside of scripts and styles."""

    def __init__(self):
        super().__init__()
        self.found, self.words, self.inside = [], [], ""

    def handle_starttag(self, tag, attrs):
        self.inside = tag
        self.found += [v for k, v in attrs if k in ("src", "srcset", "data", "poster") or (tag == "link" and k == "href")]

    def handle_data(self, data):
        if self.inside not in ("script", "style"):
            self.words.append(data)

    def handle_endtag(self, tag):
        self.inside = ""


@pytest.fixture(scope="module")
def html():
    return report(summarise(ROWS), ROWS)


@pytest.fixture(scope="module")
def seen(html):
    parser = Loads()
    parser.feed(html)
    return parser


def test_nothing_is_loaded(html, seen):
    assert seen.found == []
    style = "".join(re.findall(r"<style>(.*?)</style>", html, re.S))
    assert "url(" not in style and "@import" not in style
    assert "<script" not in html and len(html) < 100_000


def test_it_says_the_figures_the_settings_and_the_machine(seen):
    text = "\n".join(seen.words)
    for needed in ("50 [12, 88]", "snapkv:window=16", "window=16, kernel=5, pooling=avg", "0123456789ab", "some cpu"):
        assert needed in text
    assert "mode in view, 512 tokens" in text and "mode later, 512 tokens" in text
    assert "chat template is always applied" in text and "1000000 to 1000003 (4)" in text


def test_missed_budgets_are_named():
    assert missed(summarise(ROWS)) == ""
    rows = [row | ({"achieved": 0.35} if row["keep"] == 0.5 and row["method"] == "random" else {}) for row in ROWS]
    assert missed(summarise(rows)) == "random asked keep=0.5, kept 0.350 to 0.350"
    assert "random asked keep=0.5" in report(summarise(rows), rows)


def test_markup_in_names_is_escaped():
    rows = [row | {"settings": row["settings"] | {"model": "<script>alert(1)</script>"}} for row in ROWS]
    assert "<script>alert(1)" not in report(summarise(rows), rows)
