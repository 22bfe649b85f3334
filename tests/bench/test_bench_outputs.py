"""Table and report are written whole or not at all, and the report only where plotly is."""

import subprocess
import sys

import pytest
from helpers.bench_tools import GRID, made_up

from laconic.bench import outputs
from laconic.bench.outputs import REPORT, RESULTS, TABLE, why_no_report, write_outputs
from laconic.bench.store import StoreError

ROWS = [made_up(cell, float(cell.seed % 2 or cell.method == "none")) for cell in GRID.cells()]


@pytest.fixture
def no_plotly(monkeypatch: pytest.MonkeyPatch):
    """As if plotly were not installed: it is not found, and whoever imports it fails."""
    real = outputs.find_spec
    monkeypatch.setattr(outputs, "find_spec", lambda name: None if name == "plotly" else real(name))
    monkeypatch.setitem(sys.modules, "plotly", None)
    monkeypatch.delitem(sys.modules, "laconic.bench.report", raising=False)


def test_outputs_are_written_whole_or_not_at_all(tmp_path):
    write_outputs(ROWS, tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([TABLE, REPORT])
    with pytest.raises(StoreError, match="no finished row"):
        write_outputs([], tmp_path)
    (tmp_path / "gone").mkdir()
    (tmp_path / "gone" / TABLE).mkdir()
    with pytest.raises(StoreError, match=f"could not be written.*{RESULTS} is untouched"):
        write_outputs(ROWS, tmp_path / "gone")
    assert [p.name for p in (tmp_path / "gone").iterdir()] == [TABLE]


def test_without_plotly_there_is_a_table_and_a_reason(tmp_path, no_plotly):
    lines = write_outputs(ROWS, tmp_path)
    assert len(lines) > 1 and [p.name for p in tmp_path.iterdir()] == [TABLE]
    reason = why_no_report(tmp_path)
    assert reason is not None and reason.startswith("report.html was not written: it needs plotly.")
    assert "pip install 'laconic-transformers[report]'" in reason
    assert f"laconic bench --report-only --out {tmp_path}" in reason


def test_a_report_of_an_earlier_run_is_called_one(tmp_path, no_plotly):
    (tmp_path / REPORT).write_text("old")
    write_outputs(ROWS, tmp_path)
    assert (tmp_path / REPORT).read_text() == "old"
    assert "not written (the existing one is from an earlier run): " in (why_no_report(tmp_path) or "")


def test_with_plotly_there_is_no_reason(tmp_path):
    assert why_no_report(tmp_path) is None


def test_plotly_is_imported_for_a_report_only():
    code = "import sys, laconic.bench.outputs, laconic.cli.bench; sys.exit('plotly' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
