"""What tests of several cache methods need."""

import pytest

import laconic
from laconic.cache.layer import CompressedLayer


@pytest.fixture
def record(monkeypatch):
    """Layer number -> (queries, new keys, new values, output) of every pass inside a session."""
    seen = {}
    original = CompressedLayer.attend

    def attend(self, q, keys, values, scale, softcap):
        out = original(self, q, keys, values, scale, softcap)
        seen.setdefault(self.number, []).append((q.clone(), keys.clone(), values.clone(), out.clone()))
        return out

    monkeypatch.setattr(CompressedLayer, "attend", attend)
    return seen


@pytest.fixture(scope="module")
def lm():
    return laconic.load("testbed/lm")
