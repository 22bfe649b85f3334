"""What compresses comes from a request with numbers and the method's own words, and nothing else."""

import pytest

from laconic.serve.compression import Compression
from laconic.serve.refusal import Refusal


def built(given, trusted=False):
    return Compression.wired(Compression.of(given, "compress", trusted).facts()).build()


def test_it_survives_the_wire():
    (method,) = built({"method": "snapkv", "parameters": {"window": 8}, "keep": 0.5})
    assert method.name == "snapkv" and method.window == 8 and method.keep == 0.5


def test_words_of_the_method_are_allowed():
    (method,) = built({"method": "truncate", "parameters": {"side": "right"}, "tokens": 9})
    assert method.side == "right" and method.tokens == 9


def test_a_budget_is_for_the_method_that_chooses():
    chooses, packs = built({"method": ["snapkv", "kivi"], "keep": 0.5})
    assert chooses.keep == 0.5 and packs.keep != 0.5


@pytest.mark.parametrize(
    ("given", "code"),
    [
        ("snapkv", "invalid_value"),
        ({}, "invalid_value"),
        ({"method": 3}, "invalid_value"),
        ({"method": "snapkvv"}, "invalid_value"),
        ({"method": "snapkv", "keep": 0}, "budget_error"),
        ({"method": "snapkv", "keep": 0.5, "tokens": 3}, "budget_error"),
        ({"method": "snapkv", "kep": 0.5}, "unknown_parameter"),
        ({"method": "snapkv", "parameters": {"windw": 3}}, "invalid_value"),
        ({"method": "snapkv", "parameters": {"window": "x"}}, "invalid_value"),
        ({"method": "snapkv", "parameters": {"window": [1]}}, "invalid_value"),
        ({"method": "truncate", "parameters": {"side": "../x"}}, "invalid_value"),
        ({"method": "fastkv", "parameters": {"artifact": "x"}}, "invalid_value"),
        ({"method": "fastkv", "parameters": {"artifact": None}}, "invalid_value"),
        ({"method": "snapkv", "protect": 3}, "invalid_value"),
        ({"method": "snapkv", "protect": [[4, 2]]}, "invalid_value"),
        ({"method": "snapkv", "protect": ["a"] * 65}, "invalid_value"),
    ],
)
def test_anything_else_is_refused(given, code):
    with pytest.raises(Refusal) as caught:
        built(given)
    assert caught.value.status == 400 and caught.value.code == code


@pytest.mark.parametrize(
    ("given", "want"), [("system", ["system"]), ([3, 5], [(3, 5)]), (["a", [1, 2]], ["a", (1, 2)]), ([], [])]
)
def test_what_is_protected(given, want):
    assert Compression.of({"method": "snapkv", "protect": given}, "compress").protect == want
