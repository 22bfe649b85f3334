"""Tasks x methods x budgets x lengths x modes on one model: results.jsonl, a table and a report."""

from laconic.bench.grid import Cell, Grid
from laconic.bench.presets import preset, presets
from laconic.bench.runner import Bench
from laconic.bench.store import Store, StoreError

__all__ = ["Bench", "Cell", "Grid", "Store", "StoreError", "preset", "presets"]
