"""Write docs/taxonomy.md from the catalogue. Run: python -m tools.pages.taxonomy [--check]"""

from __future__ import annotations

from collections.abc import Iterable

import laconic
from laconic.method import Entry, terms
from tools.pages.parts import DOCS, write_or_check

PAGE = DOCS / "taxonomy.md"
MODALITIES = ("image", "video", "audio")
ROWS = {
    "transformation: pool, stack, sample": ("transformation", None),
    "similarity: drop or merge what is alike": ("similarity", None),
    "attention in the encoder": ("attention", "encoder"),
    "attention in the decoder": ("attention", "tokens cache"),
    "query: select by the question": ("query", None),
}
"""Rows of the survey's table: principle, and where a method acts."""
INTRODUCTION = """# Methods by modality and mechanism

Generated from the catalogue by `python -m tools.pages.taxonomy`; do not edit.

The survey *When Tokens Talk Too Much* (arXiv 2507.20198) sorts the compression of visual and audio tokens by modality and by
what decides about a token. This is its table with laconic's methods in the cells; a method may stand in several. Cells
without a method are empty: nothing of the kind is in laconic yet. `laconic methods --modality video --mechanism similarity`
lists a cell.
"""


def cell(entries: Iterable[Entry], modality: str, principle: str, sites: str | None) -> str:
    """Links to the methods of one cell."""
    found = [e for e in entries if modality in terms(e.modality) and principle in terms(e.principle)]
    return ", ".join(link(e) for e in found if sites is None or place(e) in sites)


def place(entry: Entry) -> str:
    """Where the attention is that a method looks at: one that acts on the decoder's tokens may look at the encoder's."""
    own = getattr(entry.cls, "encoder_layers", None)
    return "encoder" if own is not None and own is not laconic.TokenMethod.encoder_layers else entry.site


def link(entry: Entry) -> str:
    """To the method's section in the catalogue."""
    return f"[`{entry.name}`](methods.md#{entry.name})"


def taxonomy() -> str:
    """The page as Markdown."""
    entries = laconic.list_methods()
    lines = [INTRODUCTION, "| | " + " | ".join(MODALITIES) + " |", "|---|" + "---|" * len(MODALITIES)]
    for title, (principle, sites) in ROWS.items():
        cells = (cell(entries, modality, principle, sites) for modality in MODALITIES)
        lines.append(f"| {title} | " + " | ".join(cells) + " |")
    lines += ["", "## Outside of the table", "", "Methods for visual tokens that decide by something else."]
    lines += ["", "| method | site | mechanism |", "|---|---|---|"]
    for e in entries:
        if not e.principle and terms(e.modality) & {*MODALITIES}:
            lines.append(f"| {link(e)} | {e.site} | {e.mechanism} |")
    lines += ["", "## Methods for any token", "", "They treat tokens of text, images and videos alike."]
    lines += ["", "| mechanism | site | methods |", "|---|---|---|"]
    groups: dict[tuple[str, str], list[str]] = {}
    for e in entries:
        if e.modality == "text":
            groups.setdefault((e.mechanism, e.site), []).append(link(e))
    lines += [f"| {mechanism} | {site} | {', '.join(names)} |" for (mechanism, site), names in sorted(groups.items())]
    return "\n".join(lines) + "\n"


def main() -> int:
    """Write the page, or with --check say whether it is current."""
    return write_or_check(PAGE, taxonomy(), "taxonomy")


if __name__ == "__main__":
    raise SystemExit(main())
