"""The page of model families is what was found, and what was found is found again."""

import importlib.util

import pytest
import torch

from tools.pages.families import PAGE, families
from tools.pages.parts import ROOT, results

FOUND = results("families")


def test_the_page_is_current():
    assert FOUND is not None and PAGE.read_text(encoding="utf-8") == families(FOUND)


def test_what_works_has_stock_logits():
    works = [row for row in FOUND["families"].values() if row["works"]]
    assert len(works) > 40 and max(row["gap"] for row in works) < 1e-5
    assert all(row["methods"]["attention"] is None and row["methods"]["decoding"] is None for row in works)


@pytest.mark.parametrize("kind", ["cohere2", "deepseek_v3", "doge", "gpt_neox", "mamba", "phi3"])
def test_what_was_found_is_found_again(kind):
    spec = importlib.util.spec_from_file_location("families", ROOT / "benchmarks" / "families.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    with torch.no_grad():
        now = script.tried(script.build(kind), torch.randint(2, 97, (1, 40), generator=torch.Generator().manual_seed(3)))
    known = FOUND["families"][kind]
    assert {name: value for name, value in now.items() if name != "gap"} == {
        name: known[name] for name in now if name != "gap"
    }
    assert now.get("gap", 0) < 1e-5
