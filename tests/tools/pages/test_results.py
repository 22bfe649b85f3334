"""The pages in benchmarks/results are what their makers write from the results beside them."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest

from tools.pages import parts

NAMES = ("speed", "kvpress", "vision", "fused", "decode_attention")


@pytest.mark.parametrize("name", NAMES)
def test_the_page_is_current(name: str):
    page = importlib.import_module(f"tools.pages.{name}").page()
    written = (parts.RESULTS / f"{name}.md").read_text(encoding="utf-8")
    assert page == written, f"benchmarks/results/{name}.md is stale: run python -m tools.pages.{name}"


@pytest.mark.parametrize("name", [*NAMES, "gpu_decode"])
def test_without_results_there_is_no_page(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(parts, "RESULTS", tmp_path)
    assert importlib.import_module(f"tools.pages.{name}").page() is None


def test_the_page_of_a_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    row = {
        "batch": 1,
        "tokens": 8192,
        "what": "sdpa bf16",
        "ms": 0.5,
        "limit_ms": 0.25,
        "times_limit": 2.0,
        "sdpa_over_this": 1,
    }
    (tmp_path / "gpu_decode.json").write_text(json.dumps({"gpu": "a GPU", "gb_per_s": 900, "rows": [row]}))
    monkeypatch.setattr(parts, "RESULTS", tmp_path)
    page = importlib.import_module("tools.pages.gpu_decode").page()
    assert "on a GPU (copies 900 GB/s)." in page and "| 1 | 8192 | sdpa bf16 | 0.5 | 0.25 | 2.0 | 1 |\n" in page
