"""Folders that `laconic.bake` writes: whole or not at all, and loaded by transformers alone."""

import os
import signal

import pytest
import torch
from helpers.weight_tools import logits
from transformers import AutoModelForCausalLM, AutoTokenizer

import laconic
from laconic.baking import BakeError
from laconic.weights.edit import WeightEdit


@pytest.fixture(scope="module")
def testbed():
    return laconic.load("testbed/lm")


IDS = torch.arange(3, 40)[None]


def test_a_folder_is_loaded_without_laconic(testbed, tmp_path):
    model, tokenizer = testbed
    before = {name: p.clone() for name, p in model.named_parameters()}
    baked = laconic.bake(model, tokenizer, "sparsegpt:keep=0.5", tmp_path / "out", {"windows": "2", "tokens": "64"})
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    weights = [p for name, p in loaded.named_parameters() if "proj" in name]
    assert baked.facts["sparsity"] == 0.5 and all((p == 0).float().mean() == 0.5 for p in weights)
    assert AutoTokenizer.from_pretrained(tmp_path / "out").get_vocab() == tokenizer.get_vocab()
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())
    assert all(path.stat().st_mode & 0o044 == 0o044 for path in (tmp_path / "out").iterdir())  # others may load it
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "| sparsity | 0.5000 |" in card and "| calibration: tokens | 128 |" in card and "stored as zeros" in card
    with laconic.compress(model, laconic.SnapKV(keep=1.0)), torch.no_grad():
        assert not torch.allclose(model(IDS).logits, logits(loaded, IDS), atol=1e-2)


def test_neutral_is_the_model(testbed, tmp_path):
    model, tokenizer = testbed
    baked = laconic.bake(model, tokenizer, laconic.Wanda(keep=1.0), tmp_path / "out")
    assert torch.equal(logits(AutoModelForCausalLM.from_pretrained(tmp_path / "out"), IDS), logits(model, IDS))
    assert baked.parameters == baked.parameters_before


def test_packed_weights_take_fewer_bytes(testbed, tmp_path):
    baked = laconic.bake(*testbed, "rtn:bits=4,group=32", tmp_path / "out")
    assert baked.bytes < 0.55 * baked.bytes_before  # the embedding stays as it is
    assert baked.facts["bits per weight"] == 4.5


class Killed(BaseException):
    """What ends a process in the middle."""


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt, Killed])
def test_an_interrupted_bake_leaves_nothing(error, testbed, tmp_path, monkeypatch):
    model, tokenizer = testbed
    before = {name: p.clone() for name, p in model.named_parameters()}

    def write(self, model, folder):
        model.save_pretrained(folder)
        raise error

    monkeypatch.setattr(WeightEdit, "write", write)
    with pytest.raises(error):
        laconic.bake(model, tokenizer, "magnitude", tmp_path / "out")
    assert not list(tmp_path.iterdir())
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_killed_process_leaves_no_folder_and_the_next_bake_makes_it(testbed, tmp_path, monkeypatch):
    """Nothing runs after the signal: no handler, no cleaning up."""
    own = WeightEdit.write

    def write(self, model, folder):
        own(self, model, folder)
        os.kill(os.getpid(), signal.SIGKILL)

    child = os.fork()
    if child == 0:
        monkeypatch.setattr(WeightEdit, "write", write)
        laconic.bake(*testbed, "magnitude", tmp_path / "out")
        os._exit(0)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    assert not (tmp_path / "out").exists() and all(path.name.startswith(".out.") for path in tmp_path.iterdir())
    laconic.bake(*testbed, "magnitude", tmp_path / "out")
    AutoModelForCausalLM.from_pretrained(tmp_path / "out")


def test_a_folder_that_exists_is_refused(testbed, tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(BakeError, match="exists already"):
        laconic.bake(*testbed, "magnitude", tmp_path / "out")
    with pytest.raises(BakeError, match="does not exist"):
        laconic.bake(*testbed, "magnitude", tmp_path / "none" / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_folder_that_appears_meanwhile_is_not_replaced(testbed, tmp_path, monkeypatch):
    def write(self, model, folder):
        (tmp_path / "out").mkdir()
        model.save_pretrained(folder)

    monkeypatch.setattr(WeightEdit, "write", write)
    with pytest.raises(BakeError, match="exists already"):
        laconic.bake(*testbed, "magnitude", tmp_path / "out")
    assert not list((tmp_path / "out").iterdir()) and len(list(tmp_path.iterdir())) == 1


def test_what_cannot_be_baked(testbed, tmp_path):
    with pytest.raises(BakeError, match="writes no weights that hold for every prompt"):
        laconic.bake(*testbed, "snapkv", tmp_path / "out")
    with pytest.raises(BakeError, match="settings windows are of a measurement"):
        laconic.bake(*testbed, "magnitude", tmp_path / "out", {"windows": "3"})
    with pytest.raises(laconic.UnknownNameError, match="no setting 'window'"):
        laconic.bake(*testbed, "wanda", tmp_path / "out", {"window": "3"})
    assert not list(tmp_path.iterdir())
