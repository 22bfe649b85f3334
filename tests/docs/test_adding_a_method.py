"""The page about adding a method: its examples run, and are those of examples/."""

from __future__ import annotations

import re
import sys
import types
from pathlib import Path

import pytest
import torch
from helpers.vision_tools import inputs

import laconic
from laconic.fit import Trainer
from laconic.method import CATALOGUE

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "adding-a-method.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, flags=re.S)


def block(text: str) -> str:
    """The one Python block that contains `text`."""
    (found,) = [code for code in BLOCKS if text in code]
    return found


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch):
    """A module to run blocks in: `module(code)` -> its names. What they register is forgotten afterwards."""
    before = set(CATALOGUE)
    home = types.ModuleType("worked_example")  # dataclasses look their module up
    monkeypatch.setitem(sys.modules, home.__name__, home)

    def run(*code: str) -> dict[str, object]:
        for each in code:
            exec(each, home.__dict__)
        return home.__dict__

    yield run
    for name in CATALOGUE.keys() - before:
        del CATALOGUE[name]


def test_the_cache_method_is_short_and_runs(module):
    define = block("class LoudValues")
    assert len(define.splitlines()) < 60
    session = module(define, block("LoudValues(keep=0.5)"))["session"]
    assert isinstance(session, laconic.Session)
    assert abs(session.stats.asked - 0.5) < 0.05
    window = session.kept(layer=0, head=0)
    assert torch.equal(window, window.sort().values) and len(window) < session.stats.tokens_in


def test_the_method_on_visual_tokens_runs(module, vlm):
    method = module(block("class LoudPatches"))["LoudPatches"]
    with laconic.compress(vlm, method(keep=0.25)) as session:
        vlm.generate(**inputs([(3, 5)]), max_new_tokens=2)
    assert session.stats.visual == dict.fromkeys(range(8), 36.0)


def test_the_method_on_the_encoder_keeps_what_it_attends_to(module, vlm):
    method = module(block("class WatchedPatches"))["WatchedPatches"](keep=0.25)
    seen = {}
    reduce = method.cut

    def cut(stream):
        (span,) = stream.visual.spans
        seen["attention"], seen["cut"] = stream.visual.received_attention(span, -2).sum(0).flatten(), reduce(stream)
        return seen["cut"]

    method.cut = cut
    with laconic.compress(vlm, method) as session:
        vlm.generate(**inputs([(3, 5)]), max_new_tokens=2)
    assert session.stats.visual == dict.fromkeys(range(8), 36.0)
    image = seen["cut"].merged[0, 3 : 3 + 144]  # after three tokens of text
    assert torch.equal((image >= 0).nonzero()[:, 0], seen["attention"].topk(36).indices.sort().values)


def test_the_method_on_weights_runs_and_leaves_nothing(module, llama, prompt):
    method, ids = module(block("class HalfMLPs"))["HalfMLPs"], prompt(1, 12)
    stock = llama(ids).logits
    with laconic.compress(llama, method()):
        halved = llama(ids).logits
    with laconic.compress(llama, method(keep=1.0)):
        torch.testing.assert_close(llama(ids).logits, stock, atol=1e-5, rtol=1e-5)
    assert torch.equal(llama(ids).logits, stock) and not torch.allclose(halved, stock, atol=1e-2)


@pytest.mark.parametrize("name", ["loud_values", "loud_patches"])
def test_the_page_shows_the_code_of_the_examples(name):
    script = (ROOT / "examples" / name / f"{name}.py").read_text(encoding="utf-8")
    (cls,) = re.findall(r"^class (\w+)", script, flags=re.M)
    shown = block(f"class {cls}")
    assert shown.replace("from pathlib import Path\n", "").strip() in script.replace("from pathlib import Path\n", "")


def test_files_that_the_page_names_exist():
    for path in re.findall(r"`((?:laconic/|methods/|tests/)[\w/.]+)`", PAGE):
        places = (ROOT / path, ROOT / "src" / path, ROOT / "src" / "laconic" / path)
        assert any(place.exists() for place in places), path


def test_the_fit_runs(module):
    fit = module(block("class LongValuesFit"))["LongValuesFit"](tokens=64)
    found = Trainer(fit, *laconic.load("testbed/lm")).run()
    assert (found.method, found.data, found.settings) == ("long_values", {"layers": [0, 3]}, {"seed": 0, "tokens": 64})
