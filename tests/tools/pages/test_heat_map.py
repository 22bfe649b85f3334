"""The heat map: a cell per method and column, shaded by its share."""

import re
from xml.etree import ElementTree

from tools.pages.heat_map import FULL, GAP, HIGH, LEFT, TOP, WIDE, Block, heat_map

SHARES = {("a", 0): 0.0, ("a", 1): 1.0, ("b <", 0): 0.5, ("b <", 1): None}


def test_cells_are_where_and_what_they_should_be():
    svg = heat_map(["a", "b <"], [Block("one & two", ("x", "y"), lambda method, column: SHARES[method, column])])
    root = ElementTree.fromstring(svg)
    assert root.get("width") == str(LEFT + 2 * WIDE + GAP) and root.get("height") == str(TOP + 2 * HIGH + 12)
    cells = [r for r in root.iter("{http://www.w3.org/2000/svg}rect") if r.get("x")]
    assert [(float(r.get("x")), float(r.get("y"))) for r in cells] == [
        (LEFT + j * WIDE, TOP + k * HIGH) for j in (0, 1) for k in (0, 1)
    ]
    middle = ",".join(str(round(255 + 0.5 * (full - 255))) for full in FULL)
    full = ",".join(map(str, FULL))
    assert [r.get("fill") for r in cells] == ["rgb(255,255,255)", f"rgb({middle})", f"rgb({full})", "#eee"]
    texts = [t.text for t in root.iter("{http://www.w3.org/2000/svg}text")]
    assert texts == ["one & two", "x", "0", "50", "y", "100", "a", "b <"]
    assert re.search(r'fill="#fff">100<', svg) and re.search(r'fill="#222">50<', svg), "light ink on dark cells only"
