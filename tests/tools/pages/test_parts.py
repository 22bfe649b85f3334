"""Tables, ratios and files of the pages."""

from pathlib import Path

import pytest

from tools.pages import parts


def test_a_table_has_its_rows():
    assert parts.table(["a", "b"], [[1, "x"], [2, ""]]) == "| a | b |\n|---|---|\n| 1 | x |\n| 2 |  |"


def test_a_ratio_has_its_quartiles():
    assert parts.spread({"ratio": 1.5, "quartiles": [1.449, 1.561]}) == "1.50 (1.45 to 1.56)"


def test_a_page_is_written_or_its_script_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(parts, "RESULTS", tmp_path)
    assert parts.results("x") is None
    assert parts.write_page("x", None, "x.py") == 1 and "run benchmarks/x.py" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
    assert parts.write_page("x", "text\n", "x.py") == 0 and (tmp_path / "x.md").read_text() == "text\n"
