"""The seams of the cache: who gets it in a pass, and what does not go together."""

import pytest

import laconic
from laconic import ConflictError, SnapKV


def test_each_pass_gets_the_methods_of_its_own_session(llama, prompt):
    choose, pack = SnapKV(keep=0.5), laconic.create_method("kivi:residual=32")
    with laconic.compress(llama, choose, pack) as session:
        llama(prompt(1, 40))
        cache = session.cache
        assert cache.method is choose and cache.storage is pack and session.meter.budgeted is choose
    with laconic.compress(llama) as plain:
        llama(prompt(1, 4), past_key_values=cache)
        assert cache.method is None and cache.storage is None and plain.meter.budgeted is None
    with laconic.compress(llama, pack) as packing:
        llama(prompt(1, 4), past_key_values=cache)
        assert cache.method is None and cache.storage is pack and packing.meter.budgeted is pack


@pytest.mark.parametrize(
    ("chooser", "why"),
    [("h2o", "evicts while decoding"), ("adakv", "keeps a different number of entries in every head")],
)
def test_a_chooser_that_needs_exact_rectangles_and_a_packer_are_refused(llama, chooser, why):
    method, pack = laconic.create_method(chooser, keep=0.5), laconic.create_method("kivi")
    with pytest.raises(ConflictError, match=rf"{chooser} {why}, and kivi packs entries permanently, as rectangles"):
        laconic.compress(llama, pack, method)
    laconic.compress(llama, pack, laconic.create_method(chooser, keep=1.0))  # neutral: it chooses nothing
