"""The inspect page in a browser: its script runs, and says what was kept."""

import pytest
from helpers.browser_tools import needs_browser, probe

from laconic.report.kept import Kept, Subject, kept_page
from laconic.report.pieces import TextPiece

pytestmark = needs_browser


@pytest.fixture
def page(tmp_path):
    pieces = [TextPiece(0, 1, "one "), TextPiece(1, 2, "two "), TextPiece(2, 4, "\u732b\n"), TextPiece(4, 5, "five")]
    kept = Kept(5, {0: [[0, 1], [0, 2, 3]], 3: [[0], [0]]}, [0, 4], 3)
    file = tmp_path / "page.html"
    file.write_text(kept_page("t", Subject([], 4), [kept], pieces, [10, 11, 12, 13, 14]), encoding="utf-8")
    return file


def test_shares_and_counts_follow_the_choice_of_layer_and_head(page):
    script = """
    const shown = () => out.push([get('count').textContent, spans.map(s => s.style.getPropertyValue('--s')).join(' ')]);
    shown();
    layerBox.value = '0'; layerBox.dispatchEvent(new Event('change')); shown();
    headBox.value = '1'; headBox.dispatchEvent(new Event('change')); shown();
    layerBox.value = 'stream'; layerBox.dispatchEvent(new Event('change')); shown();
    out.push(headBox.disabled, location.hash);
    """
    assert probe(page, script) == [
        ["4 of 5 tokens kept somewhere, 1 everywhere", "1 0.25 0.25 0"],
        ["4 of 5 tokens kept somewhere, 1 everywhere", "1 0.5 0.5 0"],
        ["3 of 5 tokens kept", "1 0 1 0"],
        ["2 of 5 tokens kept", "1 0 0 1"],
        True,
        "#stream.all",
    ]


def test_a_token_is_explained(page):
    script = """
    for (const i of [0, 2]) {
      spans[i].dispatchEvent(new MouseEvent('mouseover', {bubbles: true}));
      out.push(tip.textContent);
    }
    heat.dispatchEvent(new MouseEvent('click', {clientX: heat.getBoundingClientRect().right - 2, clientY: 0}));
    out.push(spans.findIndex(s => s.classList.contains('at')), get('labels').textContent, tip.hidden);
    """
    first, third, at, labels, hidden = probe(page, script)
    assert first.split("\n") == [
        *('token 0, id 10: "one "', "kept by 4 of 4 heads", "layer 0: all heads", "layer 3: all heads"),
        "travelled on to layer 3",
    ]
    assert third.startswith('tokens 2\u20133, id 12 13: "\u732b\\n"\n2: kept by 1 of 4 heads\nlayer 0: head 1\n')
    assert third.endswith("did not travel on") and at == 3 and labels == "layer 0layer 3stream" and not hidden


def test_the_slider_goes_from_budget_to_budget(tmp_path):
    pieces = [TextPiece(i, i + 1, f"w{i} ") for i in range(4)]
    levels = [
        Kept(4, {0: [[0], [0]], 3: [[0], [1]]}, label="0.25", asked=0.25, answer="a"),
        Kept(4, {0: [[0, 2], [0, 1]], 3: [[0, 1], [1, 2]]}, label="0.5", asked=0.5, answer="b"),
        Kept(4, {0: [range(4)] * 2, 3: [range(4)] * 2}, label="uncompressed", answer="b"),
    ]
    file = tmp_path / "page.html"
    file.write_text(kept_page("t", Subject([], 2), levels, pieces, [1, 2, 3, 4], 1), encoding="utf-8")
    script = """
    const shown = () => out.push([get('keepName').textContent, spans.map(s => s.style.getPropertyValue('--s')).join(' '),
      [...document.querySelectorAll('.counts')].map(x => x.hidden).join(' '), location.hash]);
    const to = n => { get('keep').value = n; get('keep').dispatchEvent(new Event('input')); };
    shown(); to(0); shown();
    document.querySelectorAll('.ticks button')[2].click(); shown();
    get('least').checked = true; get('least').dispatchEvent(new Event('change')); shown();
    layerBox.value = '0'; layerBox.dispatchEvent(new Event('change')); shown();
    spans[1].dispatchEvent(new MouseEvent('mouseover', {bubbles: true}));
    out.push(tip.textContent.split('\\n').pop(), get('most').textContent);
    """
    middle, least = 1 - 1 / 3, 1 - 2 / 3  # kept from the second, and from the third of three budgets on
    assert probe(file, script) == [
        ["0.5", "0.75 0.75 0.5 0", "true false true", "#all.all.1"],
        ["0.25", "0.75 0.25 0 0", "false true true", "#all.all.0"],
        ["uncompressed", "1 1 1 1", "true true false", "#all.all.2"],
        ["uncompressed", f"1 1 {middle} {least}", "true true false", "#all.all.2"],
        ["uncompressed", f"1 {middle} {middle} {least}", "true true false", "#0.all.2"],
        "smallest budget that keeps it: 0.25",
        "kept at 0.25",
    ]
