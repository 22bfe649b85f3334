"""`laconic methods`."""

import pytest

from laconic.method import list_methods

KEYS = {
    "name", "site", "modality", "mechanism", "training", "source", "query_aware", "inferred", "summary", "class",
    "parameters",
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
