"""Calibration texts for tiny models, and methods that have one."""

import torch

import laconic
from helpers.session_tools import LOGITS
from laconic.artifact import Artifact


def windows(model, count=6, tokens=24, seed=5):
    """Token ids [count, tokens]."""
    drawn = torch.Generator().manual_seed(seed)
    return torch.randint(1, model.config.vocab_size, (count, tokens), generator=drawn)


def calibrated(spec, model, ids=None):
    """The method of a spec with a calibration text for `model`."""
    method = laconic.create_method(spec)
    tensors = {"ids": (windows(model) if ids is None else ids).to(torch.int32)}
    method.fitted = Artifact.of(method.name, "measured", model, {"tokens": 1}, tensors)
    return method


def logits(model, ids):
    with torch.no_grad():
        return model(input_ids=ids, use_cache=False).logits


def in_session(model, method, ids, *others):
    """Logits of a plain call inside a session."""
    with laconic.compress(model, method, *others), torch.no_grad():
        return model(input_ids=ids, **LOGITS).logits
