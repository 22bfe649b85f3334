"""`laconic serve`: what the command line says becomes settings; keys; and what is refused before anything starts."""

import pytest

from laconic.cli.serve import _settings
from laconic.serve.config import Config, ConfigError, Server
from laconic.serve.keys import Key, KeyRing


def settings(*models, **more):
    names = {"method": None, "keep": None, "presets": [], "file": None, "server": {}, "store": None, "keys": None}
    return _settings(list(models), **{**names, **more})


def test_a_method_is_the_default_preset(tmp_path):
    found = settings("testbed/lm", method="snapkv:window=8", keep=0.5, store=tmp_path, server={"port": 1})
    assert isinstance(found, Config) and found.models[0].default_preset == "default"
    preset = found.presets["default"]
    assert (preset.methods, preset.parameters, preset.budget) == (("snapkv",), {"window": 8}, {"keep": 0.5})
    assert found.store.folder == tmp_path and found.server == Server(port=1)


def test_presets_have_names_and_budgets_of_their_own():
    found = settings("testbed/lm", keep=0.5, presets=["a=keydiff:keep=0.1", "b = snapkv", "c=truncate:tokens=9,side=right"])
    assert [preset.budget for preset in found.presets.values()] == [{"keep": 0.1}, {"keep": 0.5}, {"tokens": 9}]
    assert found.models[0].default_preset is None and found.presets["c"].parameters == {"side": "right"}


def test_options_win_over_a_file(tmp_path):
    file = tmp_path / "laconic.toml"
    file.write_text('[server]\nport = 5\nhost = "::1"\n[[model]]\nname = "a"\n[preset.p]\nmethod = "keydiff"\n')
    found = settings(file=file, server={"port": 6}, presets=["p=snapkv"])
    assert found.server == Server(host="::1", port=6) and found.models[0].name == "a"
    assert found.presets["p"].methods == ("snapkv",)
    assert settings("b", file=file).models[0].name == "b"
    with pytest.raises(ConfigError, match="cannot read"):
        settings(file=tmp_path / "none")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ([], "no model"),
        (["--model", "m", "--method", "nothing"], "unknown method"),
        (["--model", "m", "--method", "keydiff", "--keep", "3"], "out of range"),
        (["--model", "m", "--preset", "x"], "NAME=METHOD"),
        (["--model", "m", "--host", "0.0.0.0"], "no keys"),
        (["--new-key", "alice"], "--api-keys"),
        (["--model", "m", "--config", "/nowhere.toml"], "cannot read"),
    ],
)
def test_what_cannot_be_served_is_refused_at_once(laconic, options, says):
    result = laconic("serve", *options)
    assert result.exit_code == 2 and says in " ".join(result.stderr.split())


def test_a_key_is_made_and_shown_once(laconic, tmp_path):
    made = laconic.json("serve", "--api-keys", tmp_path / "keys", "--new-key", "alice")
    shown = laconic("serve", "--api-keys", tmp_path / "keys", "--new-key", "bob").stdout.strip()
    ring = KeyRing(tmp_path / "keys")
    assert ring.find(made["key"]) == Key("alice") and ring.find(shown) == Key("bob")
