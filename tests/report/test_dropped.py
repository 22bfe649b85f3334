"""A text beside what was kept of it."""

from laconic.report.dropped import dropped


def test_what_was_dropped_is_struck_out():
    html = dropped(["a", " <b>", " c", "\x07d"], [0, 3], "a\x07d", "x & y")
    assert "<h2>x &amp; y</h2>" in html and "a<del> &lt;b&gt; c</del>\u2407d" in html
    assert html.count("<del>") == 1 and '<div class="text">a\u2407d</div>' in html
