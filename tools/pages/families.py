"""Write docs/families.md from benchmarks/results/families.json. Run: python -m tools.pages.families"""

from __future__ import annotations

from typing import Any

from tools.pages.parts import DOCS, Row, results, table

PAGE = DOCS / "families.md"
LEFT = {"sliding_attention": "sliding windows", "linear_attention": "linear attention", "chunked_attention": "chunks"}


def families(found: Row) -> str:
    """The page as Markdown: what works, what is refused."""
    tried: dict[str, Any] = found["families"]
    works = {kind: row for kind, row in tried.items() if row["works"]}
    refused = {kind: row for kind, row in tried.items() if not row["works"]}
    gap = max(row["gap"] for row in works.values())
    late = [kind for kind, row in refused.items() if row.get("late")]
    versions = f"transformers {found['transformers']}, torch {found['torch']}"
    lines = [
        "# Models",
        "",
        "Made by `python -m tools.pages.families` from what `python benchmarks/families.py` found; do not edit. A tiny",
        f"random model of each class ({versions}) read a prompt of 40 tokens and went on for 8,",
        "without laconic and inside a session that stores everything.",
        "",
        f"**{len(works)} of {len(tried)} families work.** Inside a session their logits differ from the stock model's by",
        f"at most {gap:.0e} of the largest logit. Vision models are in [the guide](guide.md). A model of a family",
        "that is not here works by the generic adapter, or is refused with the reason.",
        "",
        "## What works",
        "",
        "Methods that undo RoPE, such as `expected_attention`, need to know how a family lays out its rotary channels.",
        "Layers that are left alone keep transformers' own cache, which is bounded already.",
        "",
        table(
            ("`model_type`", "class", "methods that undo RoPE", "left alone"),
            [(f"`{kind}`", f"`{row['class']}`", _undoing(row), _left(row)) for kind, row in works.items()],
        ),
        "",
        "## What is refused",
        "",
        "By `compress()`, before any work" + (f"; {_names(late)} in the first call." if late else "."),
        "",
        table(
            ("`model_type`", "class", "why"),
            [(f"`{kind}`", f"`{row['class']}`", row["why"].replace("|", "\\|")) for kind, row in refused.items()],
        ),
    ]
    return "\n".join(lines) + "\n"


def _undoing(row: Row) -> str:
    refused = [name for name, why in row["methods"].items() if why is not None and name != "RoPE"]
    return "yes" if row["methods"]["RoPE"] is None else "no" + (f"; also refused: {', '.join(refused)}" if refused else "")


def _left(row: Row) -> str:
    kinds = sorted(set(row["left_alone"]))
    return ", ".join(LEFT.get(kind, kind) for kind in kinds) or "none"


def _names(kinds: list[str]) -> str:
    return ", ".join(f"`{kind}`" for kind in kinds)


def main() -> int:
    """Write the page."""
    found = results("families")
    if found is None:
        print("no results yet; run benchmarks/families.py")
        return 1
    PAGE.write_text(families(found), encoding="utf-8")
    print(f"wrote {PAGE}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
