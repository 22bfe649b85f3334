"""Optional hooks: which methods have which, and that a cache asks a method for those that it has and for no others."""

import pytest

import laconic
from laconic.cache import hooks
from laconic.cache.cache import CompressedCache
from laconic.cache.contract import CacheMethod

OWNERS = {
    hooks.ChoosesAcrossHeads: {"adakv"},
    hooks.KeepsQueries: {"ems", "zipvl"},
    hooks.SparsePrefill: {"zipvl"},
    hooks.SelectsStream: {"fastkv"},
    hooks.PseudoTokens: {"dapq"},
}


@pytest.mark.parametrize(("hook", "owners"), OWNERS.items(), ids=lambda x: getattr(x, "__name__", ""))
def test_methods_that_have_it(hook, owners):
    methods = [e for e in laconic.list_methods() if issubclass(e.cls, CacheMethod)]
    assert {e.name for e in methods if issubclass(e.cls, hook)} >= owners
    assert not isinstance(CacheMethod(), hook)  # the base class knows none of them


class Plain(CacheMethod):
    """Keeps the newest entries."""

    def score(self, obs):
        return obs.index.float()


class Everything(Plain):
    """Has the hooks that a cache asks for, and writes down when."""

    def __init__(self):
        super().__init__(keep=0.5)
        self.asked = []

    def narrow(self, obs):
        self.asked.append(("narrow", obs.layer))

    def shortens_from(self, layers):
        return 1

    def stream(self, obs):
        self.asked.append(("stream", obs.layer))

    def queries_kept(self):
        return 3


def test_a_cache_asks_for_each_hook_in_its_turn(llama, prompt):
    method = Everything()
    with laconic.compress(llama, method) as session:
        llama(prompt(1, 12))
        llama(prompt(1, 1), past_key_values=session.cache)
        queries = [layer.state["queries"].shape[2] for layer in session.cache.compressed()]
    assert method.asked == [(name, layer) for layer in range(4) for name in ("narrow", "stream")]
    assert queries == [3] * 4


def test_hooks_of_an_earlier_method_are_forgotten(llama):
    cache = CompressedCache(llama.config, Everything())
    assert cache._narrows is cache._selects is cache.method and cache._queries == 3
    cache.method = Plain(keep=0.5)
    assert (cache._narrows, cache._selects, cache._queries) == (None, None, 0)


def test_a_later_session_without_the_method_keeps_no_queries(llama, prompt):
    with laconic.compress(llama, Everything()) as session:
        llama(prompt(1, 12))
    with laconic.compress(llama) as later:
        llama(prompt(1, 5, seed=1), past_key_values=session.cache)
    assert later.cache.method is None and later.stats.entries == [11.0] * 4
