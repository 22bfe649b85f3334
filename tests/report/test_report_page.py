"""The frame of all pages, its parts, and the files that it takes in."""

from importlib.resources import files

import pytest
from helpers.html_reader import Reader

from laconic.report.image_page import PARTS
from laconic.report.page import asset, facts, page, table, visible

ASSETS = files("laconic.report") / "assets"


def test_a_page_is_whole_escaped_and_loads_nothing():
    html = page("a < b & c", "<p>body</p>", style=".x{}", script="let a = 1;")
    read = Reader(html)
    assert not read.open and read.text["title"] == read.text["h1"] == "a < b & c"
    assert read.text["p"] == "body" and "let a = 1;" in read.text["script"] and read.text["style"].endswith(".x{}")
    assert not {"src", "href"} & {name for name, _ in read.attributes}
    assert "prefers-color-scheme: dark" in html and "<script" not in page("t", "b")


def test_table_escapes_cells_and_aligns_numbers():
    html = table(["name", "n"], [["<b>", 3], ["x", 2.5]], caption="a&b")
    assert "<td>&lt;b&gt;</td><td class=num>3</td>" in html
    assert "<th>name</th><th class=num>n</th>" in html and "<caption>a&amp;b</caption>" in html
    assert table(["a"], [[True]]).count("num") == 0


def test_facts_and_warnings_are_escaped():
    html = facts([("a<", "b\x00&")], ["<u>"])
    assert html == '<dl class="card facts"><dt>a&lt;</dt><dd>b\u2400&amp;</dd></dl><p class="bad">warning: &lt;u&gt;</p>'
    assert facts([]) == '<dl class="card facts"></dl>'


def test_control_characters_are_shown_not_sent():
    assert visible("a\x1b[31m\x00\x7f\n\t") == "a\u241b[31m\u2400\u2421\n\t"


def test_assets_are_joined_in_order():
    joined = asset("page.css", "image/tip.js")
    assert joined == (ASSETS / "page.css").read_text() + (ASSETS / "image" / "tip.js").read_text()
    with pytest.raises(FileNotFoundError):
        asset("none.css")


def test_every_script_of_the_page_of_images_is_used():
    assert sorted(f"{name}.js" for name in PARTS) == sorted(file.name for file in (ASSETS / "image").iterdir())
