"""No file outside the shelf and the testbed knows a system by its name: what must be named comes from the catalogue or from
data files."""

import re
from pathlib import Path

import pytest

import laconic
from laconic.method import list_methods

SOURCE = Path(laconic.__file__).parent
GENERIC = {
    "beacon",  # a noun of the testbed's needles
    "coconut",  # another
    "random",  # the module of the standard library, and what is drawn by chance
    "pool",  # pooling of scores and rows, thread pools
    "truncate",  # what is done to a file or a text
}
ENTRIES = [entry for entry in list_methods() if entry.cls.__module__.startswith("laconic.methods.")]


def spellings(name: str) -> str:
    """Pattern of a name as papers, users and identifiers spell it: SnapKV, snap_kv, Snap-KV, "snap kv"."""
    parts = re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+", name)
    whole = any(
        len(part) == 1 or part in ("To", "Me") for part in parts
    )  # "to me" and a model's `k_norm` are something else
    whole = whole and "_" not in name  # a name that is written apart is never something else
    apart = "" if whole else "[-_ ]?"
    return apart.join(parts)


def pattern() -> re.Pattern[str]:
    """Any system as a whole word, in any case; an underscore ends a word, so `snapkv_window` is one, too."""
    names = {spelt for entry in ENTRIES for spelt in (entry.name, entry.cls.__name__)} - GENERIC
    forms = sorted({spellings(name) for name in names if name.lower() not in GENERIC}, key=len, reverse=True)
    return re.compile(rf"(?<![A-Za-z0-9])(?:{'|'.join(forms)})(?![A-Za-z0-9])", re.IGNORECASE)


def named(text: str) -> list[tuple[int, str]]:
    """Line number and name of every system in `text`."""
    found = pattern()
    return [(number, m[0]) for number, line in enumerate(text.splitlines(), 1) for m in found.finditer(line)]


@pytest.mark.parametrize(
    "text",
    [
        "as SnapKV does",
        "snapkv_window = 3",
        "Snap-KV",
        'create_method("kivi:bits=2")',
        "# StreamingLLM's sinks",
        "streaming_llm",
        "expected attention",
        "H2O",
        "LLaVA-PruMerge",
    ],
)
def test_a_name_is_seen_however_it_is_spelt(text):
    assert named(text)


@pytest.mark.parametrize(
    "text", ["import random", "thread_pool", "snapshots", "to me", "gears", "systems", "Random(keep=0.1)"]
)
def test_other_words_are_not_names(text):
    assert not named(text)


def test_every_system_is_looked_for():
    missed = [e.name for e in ENTRIES if not (named(e.name) and named(e.cls.__name__))]
    assert set(missed) == GENERIC


def test_no_system_is_named_outside_the_shelf_and_the_testbed():
    files = [
        path for path in sorted(SOURCE.rglob("*.py")) if path.relative_to(SOURCE).parts[0] not in ("methods", "testbed")
    ]
    assert len(files) > 100
    wrong = [
        f"{path.relative_to(SOURCE)}:{line}: {name}"
        for path in files
        for line, name in named(path.read_text(encoding="utf-8"))
    ]
    assert not wrong, "use the catalogue, a generic example or a data file instead:\n" + "\n".join(wrong)
