"""The catalogue: names, specs, registration, methods of other packages."""

from dataclasses import dataclass
from importlib.metadata import EntryPoint

import pytest

import laconic
from laconic import BudgetError, EntryPointError, SnapKV, UnknownNameError, plugins
from laconic import method as catalogue
from laconic.method import CATALOGUE, Method, create_method, find, list_methods, register


@pytest.fixture
def own_catalogue(monkeypatch):
    """Registrations of a test stay in the test."""
    monkeypatch.setattr(catalogue, "CATALOGUE", dict(CATALOGUE))
    return catalogue.CATALOGUE


def enter(name="ours", **changes):
    @register(name, **({"site": "cache", "mechanism": "eviction", "source": "none", "query_aware": False} | changes))
    @dataclass(kw_only=True)
    class Ours(Method):
        """One line.

        More lines.
        """

        size: int = 3
        names: list = None

    return Ours


# -- specs -------------------------------------------------------------------------------------------------------------
def test_a_name_alone_has_the_papers_defaults():
    assert create_method("snapkv") == SnapKV() and create_method(" snapkv ") == SnapKV()


def test_parameters_are_parsed():
    made = create_method("snapkv: window=8 , kernel=7,pooling=max,keep=0.1")
    assert made == SnapKV(window=8, kernel=7, pooling="max", keep=0.1)
    assert isinstance(made.window, int)
    assert create_method("expected_attention:use_values=false,epsilon=1e-2").epsilon == 0.01
    assert create_method("expected_attention:use_values=False").use_values is False
    assert create_method("fastkv:tsp_rate=none").tsp_rate is None


def test_a_budget_in_the_spec_wins():
    assert create_method("snapkv", keep=0.2).keep == 0.2
    assert create_method("snapkv:keep=0.1", keep=0.2).keep == 0.1
    made = create_method("snapkv:tokens=50", keep=0.2, protect=(0, 4))
    assert (made.keep, made.tokens, made.protect) == (None, 50, (0, 4))
    assert create_method("snapkv", keep=None, tokens=9).tokens == 9


def test_a_method_may_be_a_parameter():
    made = create_method("adakv:scorer=keydiff,alpha=0.1")
    assert made.scorer == "keydiff" and made.alpha == 0.1
    assert create_method("adakv:scorer=snapkv:window=4").forced() == (0, 4)


@pytest.mark.parametrize(
    ("spec", "offer"),
    [
        ("snapvk", "did you mean snapkv"),
        ("pyramid", "did you mean pyramidkv"),
        ("zzz", "none of .* `laconic methods` lists them"),
    ],
)
def test_unknown_methods_offer_the_closest(spec, offer):
    with pytest.raises(UnknownNameError, match=f"unknown method '{spec}': {offer}"):
        create_method(spec)
    with pytest.raises(UnknownNameError, match=offer):
        find(spec)


def test_unknown_parameters_offer_the_closest():
    with pytest.raises(UnknownNameError, match="snapkv has no parameter 'windw': did you mean window"):
        create_method("snapkv:windw=3")
    with pytest.raises(UnknownNameError, match="no parameter ''"):
        create_method("snapkv:=3")


def test_parameters_come_once_and_with_a_value():
    with pytest.raises(ValueError, match="give window once, as window=value"):
        create_method("snapkv:window")
    with pytest.raises(ValueError, match="give keep once"):
        create_method("snapkv:keep=0.1,keep=0.2")


@pytest.mark.parametrize(
    "spec", ["snapkv:keep=2", "snapkv:keep=0", "snapkv:keep=nan", "snapkv:keep=much", "snapkv:keep=true"]
)
def test_bad_budgets(spec):
    with pytest.raises(BudgetError, match="keep="):
        create_method(spec)
    with pytest.raises(BudgetError, match="exactly one"):
        create_method("snapkv:keep=0.1,tokens=5")


def test_bad_values_name_the_parameter():
    with pytest.raises(ValueError, match="window='wide'"):
        create_method("snapkv:window=wide")
    with pytest.raises(BudgetError, match="fastkv"):
        create_method("fastkv:tsp_rate=high")


# -- methods ---------------------------------------------------------------------------------------------------------
def test_budget_defaults_to_the_methods_own():
    assert SnapKV().keep == 0.25 and laconic.FastKV().keep == 0.1
    assert SnapKV(tokens=5).keep is None
    assert SnapKV(keep=1.0).neutral and not SnapKV(tokens=5).neutral


def test_parameters_and_text():
    made = SnapKV(keep=0.1, window=8)
    assert made.parameters() == {"window": 8, "kernel": 5, "pooling": "avg"}
    assert str(made) == "snapkv(keep=0.1, window=8, kernel=5, pooling=avg)"
    assert str(laconic.TOVA(tokens=5)) == "tova(tokens=5)"


# -- catalogue ---------------------------------------------------------------------------------------------------------
def test_listing_is_sorted_and_filtered():
    names = [entry.name for entry in list_methods()]
    assert names == sorted(names, key=lambda n: (catalogue.SITES.index(CATALOGUE[n].site), n))
    assert {entry.name for entry in list_methods("*kv")} >= {"snapkv", "pyramidkv", "adakv", "fastkv"}
    assert all(entry.name.endswith("kv") for entry in list_methods("*kv"))
    with pytest.raises(UnknownNameError, match="did you mean snapkv"):
        list_methods("snapvk*")


def test_every_method_says_where_it_comes_from():
    for entry in list_methods():
        assert entry.summary.endswith((".", ")")) and entry.source and entry.mechanism
        assert entry.cls.name == entry.name and entry.site in catalogue.SITES
        assert all(key in entry.cls.__doc__ for key in entry.parameters()), entry.name
        assert entry.as_dict()["parameters"] == entry.parameters()


def test_registering(own_catalogue):
    cls = enter(inferred="all of it")
    entry = find("ours")
    assert entry.cls is cls and entry.summary == "One line." and entry.inferred == "all of it"
    assert entry.parameters() == {"size": 3, "names": None}
    assert create_method("ours:size=4,keep=0.5") == cls(size=4, keep=0.5)
    assert "ours" not in CATALOGUE  # the fixture holds


def test_a_taken_name_is_refused(own_catalogue):
    with pytest.raises(ValueError, match=r"'snapkv' is taken by laconic\.methods\.cache\.snapkv\.SnapKV"):
        enter("snapkv")


def test_a_namesake_from_another_module_is_refused(own_catalogue):
    class Impostor(Method):
        """Of the same class name."""

    Impostor.__qualname__ = "SnapKV"
    with pytest.raises(ValueError, match="taken"):
        register("snapkv", site="cache", mechanism="", source="", query_aware=False)(Impostor)


def test_the_same_class_may_come_again(own_catalogue):
    """As when a module is reloaded."""
    enter()
    again = enter()
    assert find("ours").cls is again


@pytest.mark.parametrize("name", ["With-Dash", "Upper", "two words", "1st", ""])
def test_bad_names_are_refused(name):
    with pytest.raises(ValueError, match="must be lower-case"):
        enter(name)


def test_bad_sites_are_refused():
    with pytest.raises(ValueError, match="site='everywhere' of method 'ours': choose one of prompt, encoder"):
        enter(site="everywhere")


def test_methods_of_other_packages_are_found(own_catalogue, monkeypatch):
    loaded = []

    class Point:
        name = "outsider"

        def load(self):
            loaded.append(enter("outsider"))

    def entry_points(group):
        assert group == "laconic.methods"
        return [Point()]

    monkeypatch.setattr(plugins, "entry_points", entry_points)
    catalogue._fill.cache_clear()
    try:
        assert "outsider" in [entry.name for entry in list_methods()]
        assert isinstance(create_method("outsider:keep=0.5"), loaded[0])
        assert len(loaded) == 1  # loaded once
    finally:
        catalogue._fill.cache_clear()


def test_a_method_of_another_package_that_fails_to_import_takes_no_other_with_it(own_catalogue, monkeypatch):
    broken = EntryPoint("broken", "no_such_package.method", "laconic.methods")
    monkeypatch.setattr(plugins, "entry_points", lambda group: [broken] if group == "laconic.methods" else [])
    catalogue._fill.cache_clear()
    try:
        with pytest.warns(UserWarning, match=r"'broken' \(no_such_package\.method\).*laconic continues without it"):
            assert "snapkv" in [entry.name for entry in list_methods()]
        assert create_method("snapkv") == SnapKV()
        for ask in (find, list_methods, create_method):
            with pytest.raises(EntryPointError, match=r"'broken' .*No module named 'no_such_package'"):
                ask("broken")
        with pytest.raises(UnknownNameError):
            find("brokn")
    finally:
        catalogue._fill.cache_clear()


def test_a_share_in_a_text_may_be_a_percentage():
    assert create_method("snapkv:keep=10%") == SnapKV(keep=0.1)


def test_principles_are_those_of_the_survey():
    """A typing error would leave a method out of its cell of the table."""
    with pytest.raises(ValueError, match="principle='similar, query' of method 'ours': 'similar' is none of transformation"):
        enter(principle="similar, query")
    assert catalogue.terms("text and image, video") == {"text", "image", "video"}
    visual = [e for e in list_methods() if e.site in ("encoder", "tokens")]
    without = {"crop_audio", "dyvte", "random_audio", "random_visual", "silence_gate", "uniform_frames", "vtw"}
    assert {e.name for e in visual if not e.principle} == without
