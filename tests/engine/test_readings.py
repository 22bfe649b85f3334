"""Prompts that are read once for many methods, and models where every method reads them itself."""

import pytest
import torch
from helpers.zoo import ALL, prompt

import laconic
from laconic import KeyDiff, SnapKV
from laconic.engine.generation import read_context
from laconic.engine.readings import Readings


@pytest.mark.parametrize("family", ["llama", "gemma2", "gemma3", "qwen3-next"])
def test_every_method_reads_what_a_plain_run_reads(family):
    """The second method meets the recording of the first, but where layers are left alone there is none."""
    model, ids, readings, replayed = ALL[family].build(), prompt(1, 40)[0].tolist(), Readings(), []
    for chosen in (SnapKV(keep=0.5), KeyDiff(keep=0.3)):
        with laconic.compress(model, chosen) as session:
            want = read_context(session, ids)
            kept = [session.kept(i).tolist() for i in session.cache.layer_ids]
        with laconic.compress(model, chosen) as session:
            got, recorded = readings.read(session, chosen, 0, ids)
            assert [session.kept(i).tolist() for i in session.cache.layer_ids] == kept
        torch.testing.assert_close(got, want, atol=1e-5, rtol=1e-5)
        replayed.append(recorded)
    assert replayed == [False, family == "llama"]
