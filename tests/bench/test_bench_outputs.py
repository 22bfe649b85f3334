"""Table and report are written whole or not at all."""

import pytest
from helpers.bench_tools import GRID, made_up

from laconic.bench.outputs import REPORT, RESULTS, TABLE, write_outputs
from laconic.bench.store import StoreError

ROWS = [made_up(cell, float(cell.seed % 2 or cell.method == "none")) for cell in GRID.cells()]


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
