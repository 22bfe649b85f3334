"""Files of learned weights: written, found by what they belong to, refused when they are something else."""

from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import nn

from laconic import RecipeError, learned
from laconic.recipe import fingerprint


@dataclass
class Line:
    net: nn.Module
    slope: float
    model: str = "a model"
    fingerprint: str | None = None
    made: dict[str, Any] = field(default_factory=dict)


def built(about, tensors):
    net = nn.BatchNorm1d(3)
    net.load_state_dict(tensors)
    return Line(net, about["slope"], about["model"], about["fingerprint"], about["made"])


def load(path):
    return learned.load(path, "line", built)


@pytest.fixture
def path(tmp_path):
    line = Line(nn.BatchNorm1d(3), 0.5, made={"seed": 1})
    learned.save(tmp_path / "line.safetensors", "line", line, line.net, torch.bfloat16, slope=line.slope)
    return tmp_path / "line.safetensors"


def test_what_is_written_is_read(path):
    line = load(path)
    assert (line.slope, line.model, line.fingerprint, line.made) == (0.5, "a model", None, {"seed": 1})
    assert line.net.weight.dtype == torch.float32 and line.net.num_batches_tracked.dtype == torch.int64


def test_other_files_are_refused(path, tmp_path):
    with pytest.raises(RecipeError, match=r"do not exist\. Shipped ones: none"):
        load(tmp_path / "nothing")
    with pytest.raises(RecipeError, match="holds no weights that `laconic train curve` wrote: made for line"):
        learned.load(path, "curve", built)
    (tmp_path / "broken").write_bytes(path.read_bytes()[:40])
    with pytest.raises(RecipeError, match="holds no weights"):
        load(tmp_path / "broken")


def test_weights_are_found_for_their_model(llama, path, monkeypatch, tmp_path):
    assert learned.find(llama, "line", str(path), load).slope == 0.5
    with pytest.raises(RecipeError, match=r"line needs trained weights .* or guess"):
        learned.find(llama, "line", None, load, ", or guess")
    own = Line(nn.BatchNorm1d(3), 2.0, fingerprint=fingerprint(llama))
    monkeypatch.setattr(learned, "SHIPPED", tmp_path)
    learned.save(tmp_path / "line-own.safetensors", "line", own, own.net, torch.float32, slope=own.slope)
    assert learned.shipped("line") == ["line-own"] and learned.find(llama, "line", None, load).slope == 2.0
    other = Line(nn.BatchNorm1d(3), 3.0, fingerprint="0" * 32)
    learned.save(tmp_path / "line-own.safetensors", "line", other, other.net, torch.float32, slope=other.slope)
    with pytest.raises(RecipeError, match="'line-own' were trained for another model"):
        learned.find(llama, "line", "line-own", load)
