"""`laconic methods`."""

import pytest

from laconic.cli.methods import reflowed
from laconic.method import list_methods

KEYS = {
    "name", "site", "modality", "mechanism", "principle", "training", "source", "query_aware", "inferred", "summary",
    "class", "parameters",
}  # fmt: skip


def test_json_lists_the_catalogue(laconic):
    found = laconic.json("methods")
    assert [m["name"] for m in found] == [e.name for e in list_methods()]
    assert all(set(m) == KEYS for m in found)
    fastkv = next(m for m in found if m["name"] == "fastkv")
    assert fastkv["class"] == "FastKV" and fastkv["parameters"]["window"] == 8 and fastkv["query_aware"] is True


@pytest.mark.parametrize("width", ["80", "200"])
def test_table_shows_all_of_each(laconic, width, monkeypatch):
    monkeypatch.setenv("COLUMNS", width)
    shown = laconic("methods").stdout
    for entry in list_methods():
        assert entry.name in shown and entry.source.split()[-1] in shown
    assert "…" not in shown


def test_pattern_and_details(laconic):
    assert [m["name"] for m in laconic.json("methods", "*kv")] == [e.name for e in list_methods("*kv")]
    shown = laconic("methods", "fastkv").stdout
    for text in ("laconic.FastKV", "tsp_rate", "arXiv 2502.01068", "half depth", "default keep", "travels on"):
        assert text in shown


def test_unknown_names_the_closest(laconic):
    assert "did you mean snapkv" in laconic.bad(2, "methods", "snapk")
    assert "did you mean snapkv" in laconic.bad(2, "methods", "snapk", "--json")


def test_filters(laconic):
    """By modality, mechanism or principle, and site; one term of several suffices, and filters go together."""
    found = {m["name"] for m in laconic.json("methods", "--modality", "video", "--mechanism", "similarity")}
    assert (
        found == {e.name for e in list_methods() if "video" in e.modality and "similarity" in e.principle}
        and "evs" in found
        and "divprune" not in found
    )
    found = laconic.json("methods", "--mechanism", "merging", "--site", "tokens")
    assert {"apet", "sparsevlm"} <= {m["name"] for m in found} and all(m["site"] == "tokens" for m in found)
    assert {m["name"] for m in laconic.json("methods", "*kv", "--mechanism", "Eviction")} <= {
        e.name for e in list_methods("*kv")
    }
    assert "laconic.EVS" in laconic("methods", "--modality", "video", "e*").stdout


def test_filters_that_nothing_passes(laconic):
    said = laconic.bad(2, "methods", "--modality", "smell")
    assert "--modality smell: no such method; there are: 3D, audio, image, text, video." in said
    said = laconic.bad(2, "methods", "--modality", "video", "--mechanism", "quantisation")
    assert "--mechanism quantisation: no such method" in said and "similarity" in said


def test_a_docstring_is_wrapped_once():
    doc = """First line that is rather long for the width.

    Not here.

A paragraph of
two lines.

1. one, which goes
   on;
2. two.

Args:
    first: what it says takes more than one
        line.
    second: little."""
    assert reflowed(doc, 30).splitlines() == [
        "First line that is rather long",
        "for the width.",
        "",
        "    Not here.",
        "",
        "A paragraph of two lines.",
        "",
        "1. one, which goes on;",
        "2. two.",
        "",
        "Args:",
        "    first: what it says takes",
        "        more than one line.",
        "    second: little.",
    ]
