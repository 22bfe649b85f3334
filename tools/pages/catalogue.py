"""Write docs/methods.md from the catalogue. Run: python -m tools.pages.catalogue [--check]"""

from __future__ import annotations

import inspect

import laconic
from tools.pages.parts import DOCS, write_or_check

PAGE = DOCS / "methods.md"


def catalogue() -> str:
    """The page as Markdown: one table, then one section per method."""
    lines = [
        "# Methods",
        "",
        "Generated from the catalogue by `python -m tools.pages.catalogue`; do not edit. What each method did on the",
        "testbed is in [findings.md](findings.md).",
        "",
        "Every method takes `keep=`, `tokens=` or `bytes=`, and `protect=`; `keep=1.0` changes nothing.",
        "",
        "| name | class | site | mechanism | training | looks at the question | source |",
        "|---|---|---|---|---|---|---|",
    ]
    entries = laconic.list_methods()
    for e in entries:
        aware = "yes" if e.query_aware else "no"
        cells = (f"[`{e.name}`](#{e.name})", f"`{e.cls.__name__}`", e.site, e.mechanism, e.training, aware, e.source)
        lines.append("| " + " | ".join(cells) + " |")
    for e in entries:
        lines += ["", f"## {e.name}", "", inspect.getdoc(e.cls) or "", ""]
        own = ", ".join(f"`{k}={v!r}`" for k, v in e.parameters().items())
        usual = "what its parameters say" if e.cls.default_keep is None else f"`keep={e.cls.default_keep}`"
        lines.append(f"Defaults: {own or 'no parameters of its own'}; budget without one given: {usual}.")
        if e.inferred:
            lines += ["", f"Not published, chosen here: {e.inferred}."]
        if (PAGE.parent / "systems" / f"{e.name}.md").exists():
            lines += ["", f"What was checked, what was measured, what differs: [systems/{e.name}.md](systems/{e.name}.md)."]
    return "\n".join(lines) + "\n"


def main() -> int:
    """Write the page, or with --check say whether it is current."""
    return write_or_check(PAGE, catalogue(), "catalogue")


if __name__ == "__main__":
    raise SystemExit(main())
