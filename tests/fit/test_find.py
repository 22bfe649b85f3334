"""Where fits are found: beside the method, or where its catalogue entry says; no list names them."""

import sys

import pytest

import laconic
from laconic import method
from laconic.errors import UnknownNameError
from laconic.fit import Fit, TrainingFit
from laconic.fit.find import find_fit, fit_of, fits

METHOD = """
from dataclasses import dataclass
import laconic
from laconic import CacheMethod

@laconic.register("{name}", site="cache", mechanism="eviction", source="here", query_aware=False{more})
@dataclass(kw_only=True)
class {cls}(CacheMethod):
    "Keeps what it likes."
"""
FIT = """
from dataclasses import dataclass
from laconic.fit import Fit

@dataclass(kw_only=True)
class Likes(Fit):
    "What it likes."
    method = "{name}"

    def facts(self):
        return {{"liked": 1}}
"""


@pytest.fixture
def outsider(tmp_path, monkeypatch):
    """Writes packages that can be imported, and forgets their methods and modules afterwards."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(method, "CATALOGUE", dict(method.CATALOGUE))
    before = set(sys.modules)

    def write(**files):
        (tmp_path / "outside").mkdir()
        for name, text in {"__init__": "", **files}.items():
            (tmp_path / "outside" / f"{name}.py").write_text(text)

    yield write
    for name in set(sys.modules) - before:
        del sys.modules[name]


def test_methods_have_a_fit_as_the_catalogue_says():
    """Those that need none may still have one; an architecture is trained whole, by whoever builds it."""
    found, entries = fits(), {entry.name: entry for entry in laconic.list_methods()}
    assert found.keys() <= entries.keys() and {"fastkv", "embedlens", "vtw", "dyvte", "icae"} <= found.keys()
    for name, entry in entries.items():
        cls = found.get(name)
        kind = "none" if cls is None else "trained" if issubclass(cls, TrainingFit) else "calibration"
        assert entry.training in (kind, "none") or entry.site == "layers", name
        assert cls is None or find_fit(name) is cls
    assert find_fit("lococo").method == "lococo" and entries["snapkv"].training == "none"


def test_unknown_ones_name_the_closest():
    with pytest.raises(UnknownNameError, match="did you mean lococo"):
        find_fit("lococco")
    with pytest.raises(UnknownNameError, match=r"snapkv needs no fit; `laconic fit` lists the methods that have one\."):
        find_fit("snapkv")


def test_one_beside_the_method_is_found_by_its_name(outsider):
    both = METHOD.format(name="liked", cls="Liked", more="") + METHOD.format(name="other", cls="Other", more="")
    outsider(things=both, fit=FIT.format(name="liked"))
    import outside.things  # noqa: F401

    assert issubclass(find_fit("liked"), Fit) and find_fit("liked").__module__ == "outside.fit"
    assert fit_of(method.CATALOGUE["other"]) is None  # the fit beside it is another method's


def test_one_elsewhere_is_named_when_the_method_is_registered(outsider):
    things = METHOD.format(name="liked", cls="Liked", more=', fit="outside.elsewhere:Likes"')
    outsider(things=things, elsewhere=FIT.format(name="liked"))
    import outside.things  # noqa: F401

    assert "outside.elsewhere" not in sys.modules  # not before it is asked for
    assert find_fit("liked").__module__ == "outside.elsewhere"


@pytest.mark.parametrize("text", [FIT.format(name="unlike"), "Likes = 3", ""])
def test_a_name_that_means_no_fit_of_the_method_is_an_error(outsider, text):
    outsider(things=METHOD.format(name="liked", cls="Liked", more=', fit="outside.elsewhere:Likes"'), elsewhere=text)
    import outside.things  # noqa: F401

    with pytest.raises(TypeError, match=r"fit='outside\.elsewhere:Likes' names no Fit whose `method` is 'liked'"):
        find_fit("liked")


def test_two_for_one_method_are_an_error(outsider):
    two = FIT.format(name="liked") + "\nTwo = type('Two', (Likes,), {})\n"
    outsider(things=METHOD.format(name="liked", cls="Liked", more=""), fit=two)
    import outside.things  # noqa: F401

    with pytest.raises(TypeError, match="several fits: Likes, Two"):
        find_fit("liked")
