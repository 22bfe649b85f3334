"""Settings are checked before anything starts, and a mistake is met with the closest name."""

import pytest

from laconic.serve.config import Config, ConfigError, Model, Server, from_toml

EXAMPLE = """
[server]
port = 8001
drain_s = 5
[[model]]
name = "testbed/lm"
default_preset = "quarter"
allowed_methods = ["random"]
[preset.quarter]
method = "random"
keep = 0.25
protect = ["system"]
[limits]
max_inflight = 3
[key.alice]
quota_bytes = 2_000_000_000
[store]
dir = "contexts"
"""


def test_a_file_says_everything():
    config = Config(**from_toml(EXAMPLE))
    assert config.server.port == 8001 and config.server.drain_s == 5.0
    assert config.models[0].default_preset == "quarter" and config.models[0].allowed_methods == ("random",)
    assert config.presets["quarter"].budget == {"keep": 0.25} and config.presets["quarter"].trusted
    assert config.limits_of("alice").quota_bytes == 2_000_000_000 and config.limits_of("alice").max_inflight == 3
    assert config.limits_of("bob").quota_bytes == config.limits.quota_bytes


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[serverr]", "did you mean server"),
        ("[server]\nprot = 1", "did you mean port"),
        ('[server]\nport = "8000"', "not of the kind"),
        ("[server]\nport = -1", "not of the kind"),
        ("[server]\nlenient = 1", "not of the kind"),
        ("[model]\nname = 'x'", "two brackets"),
        ("[[model]]\npath = 'x'", "needs a name"),
        ("[preset.a]\nmethod = 1", "name of a method"),
        ("[preset.a]\nmethod = 'random'\nkeep = 3", "out of range"),
        ("[preset.a]\nmethodd = 'random'", "did you mean method"),
        ("key = 3", "sections"),
        ("not toml", "not TOML"),
        ("a = " + "[" * 3000, "not TOML"),
    ],
)
def test_mistakes_are_named(text, says):
    with pytest.raises(ConfigError, match=says):
        from_toml(text)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"models": ()}, "no model"),
        ({"models": (Model("a"), Model("a"))}, "two models"),
        ({"models": (Model("a:b"),)}, "presets"),
        ({"models": (Model("a", default_preset="x"),)}, "default_preset"),
        ({"models": (Model("a"),), "server": Server(host="0.0.0.0")}, "no keys"),
        ({"models": (Model("a"),), "server": Server(special_tokens="no")}, "special_tokens"),
        ({"models": (Model("a", max_batch=0),)}, "at least 1"),
    ],
)
def test_what_cannot_be_served_is_refused(given, says):
    with pytest.raises(ConfigError, match=says):
        Config(**given)


def test_an_open_address_needs_a_word():
    Config(models=(Model("a"),), server=Server(host="0.0.0.0", insecure_no_auth=True))
