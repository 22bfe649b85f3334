"""Every method of the catalogue, with parameters that suit tiny random models and prompts of 40 to 80 tokens."""

import atexit
import shutil
import tempfile
from functools import cache
from pathlib import Path

import torch

import laconic
from helpers.zap_tools import tensors
from laconic.cache.heads import shape
from laconic.cache.storage import StorageMethod

_FOLDER = Path(tempfile.mkdtemp())
atexit.register(shutil.rmtree, _FOLDER, ignore_errors=True)


def _centres():
    """An artifact of TriAttention that fits every model of 4 query heads of 8 channels: it names no weights."""
    drawn = torch.Generator().manual_seed(3)
    tensors = {"centre": torch.randn(4, 4, 8, generator=drawn), "size": 3 + torch.rand(4, 4, 4, generator=drawn)}
    laconic.Artifact("triattention", "published", "tiny", None, {"tokens": 1}, tensors).save(_FOLDER / "centres.safetensors")
    return _FOLDER / "centres.safetensors"


@cache
def _surrogate(layers=4, size=32, heads=2):
    """The same of KVzap, for so many layers of KV heads that read vectors of this size."""
    path = _FOLDER / f"surrogate-{layers}-{size}-{heads}.safetensors"
    laconic.Artifact("kvzap", "published", "tiny", None, {"thresholds": [0.0]}, tensors(layers, size, heads)).save(path)
    return path


SPECS = {
    "kvzap": f"kvzap:artifact={_surrogate()}",
    "triattention": f"triattention:artifact={_centres()}",
    "fastkv": "fastkv:tsp_rate=0.6",  # the stream must be long enough for the budgets of the tests
    "compresskv": "compresskv:heads=all",  # these models have no artifact
    "razorattention": "razorattention:heads=no",
    "lococo": "lococo:mode=hh,slack=0",  # nor weights
    "zipvl": "zipvl:short=0",
    "kivi": "kivi:group=8,residual=16",
    "gear": "gear:group=16,buffer=16,rank=1,decode_rank=1,outliers=0",
}
LEAST = {"minicache": 0.7, "kivi": 0.3, "gear": 0.5}
"""The smallest share of the bytes that a storage method is asked for here."""

METHODS = [entry.name for entry in laconic.list_methods() if entry.site == "cache"]
STORAGE = [name for name in METHODS if issubclass(laconic.method.find(name).cls, StorageMethod)]
CHOOSERS = [name for name in METHODS if name not in STORAGE]


def method(name, model=None, **budget):
    """The method at a budget; at keep=1.0 with its own defaults, which must be neutral. `model`: for one of another shape
    than `llama`."""
    if budget.get("keep") == 1.0:
        return laconic.create_method(name, **budget)
    if "keep" in budget:
        budget["keep"] = max(budget["keep"], LEAST.get(name, 0))
    spec = SPECS.get(name, name)
    if name == "kvzap" and model is not None:
        layers, _, heads = shape(model)
        spec = f"kvzap:artifact={_surrogate(layers, model.config.hidden_size, heads)}"
    return laconic.create_method(spec, **budget)
