"""The frame of all pages, and its tables."""

from helpers.html_reader import Reader

from laconic.report.page import page, table


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
