"""Tasks x methods x budgets x lengths x modes on one model: results.jsonl, a table and a report."""

from laconic.bench.grid import MODES, PRESETS, Cell, Grid
from laconic.bench.runner import Bench
from laconic.bench.store import Store, StoreError

__all__ = ["MODES", "PRESETS", "Bench", "Cell", "Grid", "Store", "StoreError"]
