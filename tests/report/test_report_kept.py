"""The inspect page: pieces of text, bit sets, escaping, size."""

import base64
import json
import re
from html import unescape

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from laconic.report.kept import Kept, Subject, kept_page
from laconic.report.pieces import TextPiece, pieces

TEXT = "Grüße 🦊🦄 日本語 👩\u200d👧 <b>&amp;</b>\n"


class Bytes:
    """A tokenizer of bytes; like SentencePiece it swallows a blank at the very beginning when `swallow`."""

    def __init__(self, swallow: bool = False):
        self.swallow = swallow

    def decode(self, ids, **options):
        text = bytes(ids).decode("utf-8", errors="replace")
        return text[1:] if self.swallow and text.startswith(" ") else text


@given(st.text(alphabet=st.characters(blacklist_categories=("Cs",), blacklist_characters="\ufffd"), max_size=40))
def test_pieces_are_whole_characters_and_cover_everything(text):
    ids = list(text.encode())
    found = pieces(Bytes(), ids)
    assert "".join(p.text for p in found) == text
    assert [p.start for p in found] == [0, *(p.stop for p in found)][:-1] and (found[-1].stop if found else 0) == len(ids)
    assert all(len(p.text) == 1 for p in found)


def test_pieces_keep_blanks_that_decoders_swallow():
    ids = list(b"a b  c")
    assert "".join(p.text for p in pieces(Bytes(swallow=True), ids)) == "a b  c"


def test_real_replacement_characters_do_not_glue_a_page_together():
    ids = list(("\ufffd" * 30 + "end").encode())
    found = pieces(Bytes(), ids)
    assert "".join(p.text for p in found) == "\ufffd" * 30 + "end"
    assert max(p.stop - p.start for p in found) <= 16


def build(text: str = TEXT, stream=None):
    ids = list(text.encode())
    n = len(ids)
    rng = np.random.default_rng(0)
    indices = {layer: [sorted(rng.choice(n, n // 3, replace=False).tolist()) for _ in range(2)] for layer in (0, 2)}
    kept = Kept(n, indices, stream, None if stream is None else 1)
    cut = pieces(Bytes(), ids)
    subject = Subject([("model", "<i>m</i>")], n // 2, ["<u>loud</u>"])
    return kept, cut, kept_page("t", subject, [kept], cut, ids)


def test_bit_sets_of_the_page_are_the_kept_indices():
    kept, _, html = build(stream=[1, 8, 9])
    data = json.loads(re.search(r"const DATA = (\{.*\});", html)[1])

    def indices(bits):
        return np.flatnonzero(np.unpackbits(np.frombuffer(base64.b64decode(bits), np.uint8), bitorder="little")).tolist()

    (level,) = data["levels"]
    assert [layer["layer"] for layer in level["layers"]] == [0, 2]
    for layer in level["layers"]:
        assert [indices(bits) for bits in layer["heads"]] == kept.indices[layer["layer"]]
    assert indices(level["stream"]) == [1, 8, 9] and level["streamFrom"] == 1 and "travelled on" in html
    assert data["ids"] == list(TEXT.encode()) and data["tokens"] == kept.tokens


def test_the_text_of_the_page_is_the_text_with_its_shares():
    kept, cut, html = build()
    spans = re.findall(r'<s data-i=(\d+)( class=g)? style="--s:([\d.e-]+)">(.*?)</s>', html, flags=re.S)
    assert unescape("".join(s[3] for s in spans)).replace("<u>\u21b5</u>", "") == TEXT
    share = kept.share()
    for (number, gone, value, _), piece in zip(spans, cut, strict=True):
        expected = share[piece.start : piece.stop].mean()
        assert int(number) == cut.index(piece) and float(value) == pytest.approx(expected, abs=1e-3)
        assert bool(gone) == (expected == 0)
    assert html.count('class="mark"') == 1
    assert "<i>m" not in html and "&lt;i&gt;m" in html and "&lt;u&gt;loud" in html


def test_share_counts_heads_of_all_layers():
    kept = Kept(4, {0: [[0, 1], [1]], 5: [[1, 2], [1, 9]]})  # 9: a token decoded later
    assert kept.share().tolist() == [0.25, 1.0, 0.25, 0.0] and kept.layers == [0, 5]


def test_thousands_of_tokens_stay_small():
    n = 8000
    kept = Kept(n, {layer: [range(0, n, 10)] * 8 for layer in range(32)})
    cut = [TextPiece(i, i + 1, "x") for i in range(n)]
    html = kept_page("t", Subject([], 0), [kept], cut, list(range(n)))
    assert len(html) < 1_200_000 and len(re.findall("<s data-i", html)) == n
