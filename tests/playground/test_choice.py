"""What the playground's settings mean, and their link."""

from urllib.parse import parse_qsl

import pytest

from laconic.playground.choice import NONE, Choice, link, settings


@pytest.mark.parametrize("text", ["none", "kvzip:keep=0.1", "kvzip:keep=0.1,over=layer,sinks=2"])
def test_a_choice_is_read_back_as_it_was_written(text):
    assert str(Choice.of(text)) == text


def test_it_is_what_the_server_takes():
    choice = Choice("kvzip", 0.1, " over=layer, sinks=2,chunk=none,window=1.5,flag=True ")
    parameters = {"over": "layer", "sinks": 2, "chunk": "none", "window": 1.5, "flag": True}
    assert choice.compress() == {"method": "kvzip", "keep": 0.1, "parameters": parameters}
    assert Choice("knorm", 0.5).compress() == {"method": "knorm", "keep": 0.5}


def test_a_link_opens_the_same_settings():
    choices = Choice("kvzip", 0.1, "over=layer"), Choice("snapkv", 0.3)
    query = dict(parse_qsl(link("testbed/lm", "What & why?", choices).removeprefix("?")))
    assert settings(query) == ("testbed/lm", "What & why?", *choices)
    assert settings({}) == ("", "", Choice(NONE), Choice(NONE))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("kvzip:keep=much", "'keep=much' is no share"),
        ("kvzip:keep=2", "more than 0, at most 1"),
        ("kvzip:over", "write key=value"),
    ],
)
def test_what_it_refuses(text, message):
    with pytest.raises(ValueError, match=message):
        Choice.of(text)
