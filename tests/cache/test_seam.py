"""The seams of the cache: who gets it in a pass, and what does not go together."""

import warnings

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


@pytest.mark.parametrize(("spec", "smaller"), [("kivi:bits=4", "residual="), ("gear:bits=4,buffer=128", "buffer=")])
def test_a_packer_that_saves_next_to_nothing_says_so_once(llama, prompt, spec, smaller):
    """A tenth of 400 tokens is less than what is stored unpacked, so the bytes are those of the choosing method alone."""
    ids, token = prompt(1, 400), prompt(1, 1, seed=1)
    with laconic.compress(llama, SnapKV(keep=0.1)) as alone:
        llama(token, past_key_values=llama(ids).past_key_values)
    with laconic.compress(llama, SnapKV(keep=0.1), laconic.create_method(spec)) as session:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            cache = llama(ids).past_key_values  # nothing is packed yet: more of the prompt may follow
        with pytest.warns(UserWarning, match=rf"saves 0% of the bytes of the 41 entries per head.*smaller {smaller}"):
            llama(token, past_key_values=cache)
        assert session.stats.kv_bytes == alone.stats.kv_bytes
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            llama(token, past_key_values=cache)


@pytest.mark.parametrize(
    ("length", "methods"),
    [
        (400, ["snapkv:keep=0.5", "kivi:bits=4,residual=32"]),
        (100, ["snapkv:keep=1.0", "kivi:bits=4"]),
        (100, ["kivi:bits=4"]),
    ],
)
def test_a_packer_that_saves_or_was_left_everything_says_nothing(llama, prompt, length, methods):
    with (
        laconic.compress(llama, *(laconic.create_method(spec) for spec in methods)),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("error")
        cache = llama(prompt(1, length)).past_key_values
        llama(prompt(1, 1), past_key_values=cache)
