"""Entry points of other packages: what loads is there, what does not is named."""

import warnings
from importlib.metadata import entry_points

import pytest

from laconic import EntryPointError
from laconic.plugins import load_plugins


@pytest.fixture
def package(tmp_path, monkeypatch):
    """An installed package with two entry points, one of which names a module that raises."""
    info = tmp_path / "their_methods-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: their-methods\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text("[laconic.tests]\nbad = their_bad\ngood = their_good:VALUE\n")
    (tmp_path / "their_bad.py").write_text("raise RuntimeError('half installed')\n")
    (tmp_path / "their_good.py").write_text("VALUE = 7\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert len(entry_points(group="laconic.tests")) == 2


def test_one_that_fails_is_named_and_the_others_load(package):
    with pytest.warns(UserWarning, match="laconic continues without it") as caught:
        plugins = load_plugins("laconic.tests")
    assert plugins.loaded == (7,) and set(plugins.failed) == {"bad"} and len(caught) == 1
    wanted = (
        "entry point 'bad' (their_bad) in group 'laconic.tests' of package their-methods 1.2 cannot be loaded: "
        "RuntimeError: half installed. Repair that package, or uninstall it."
    )
    with pytest.raises(EntryPointError) as raised:
        plugins.check("bad")
    assert str(raised.value) == wanted and isinstance(raised.value.__cause__, RuntimeError)
    assert str(caught[0].message).startswith(wanted)


def test_a_name_that_did_not_fail_passes(package):
    with warnings.catch_warnings(action="ignore"):
        plugins = load_plugins("laconic.tests")
    plugins.check("good")
    plugins.check("unknown")


def test_a_group_without_entry_points_is_empty():
    assert load_plugins("laconic.no_such_group").loaded == ()
