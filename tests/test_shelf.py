"""The catalogue as it is read from source says what the imported one says, and costs no import of torch."""

import inspect
import subprocess
import sys

import pytest

from laconic import shelf
from laconic.errors import UnknownNameError
from laconic.method import list_methods

SHARED = (
    "name",
    "site",
    "modality",
    "mechanism",
    "principle",
    "training",
    "source",
    "query_aware",
    "inferred",
    "summary",
    "fit",
)


def test_it_says_what_the_imported_catalogue_says():
    own = [entry for entry in list_methods() if entry.cls.__module__.startswith("laconic.methods.")]
    assert sorted(shelf.lines()) == sorted(entry.name for entry in own)
    for entry in own:
        line = shelf.lines()[entry.name]
        assert [getattr(line, name) for name in SHARED] == [getattr(entry, name) for name in SHARED]


def test_details_are_those_of_the_imported_class():
    for entry in list_methods():
        if not entry.cls.__module__.startswith("laconic.methods."):
            continue
        sheet, cls = shelf.sheet(entry.name), entry.cls
        assert sheet.parameters == {name: repr(value) for name, value in entry.parameters().items()}
        assert list(sheet.parameters) == list(entry.parameters())
        assert (sheet.cls, sheet.doc) == (cls.__name__, inspect.cleandoc(cls.__doc__))
        for constant in ("default_keep", "fixed_budget", "reuse", "uneven", "packs"):
            assert getattr(sheet, constant) == getattr(cls, constant), constant


def test_unknown_names():
    shelf.check_name("snapkv")
    shelf.check_name("mine", others=("mine",))
    with pytest.raises(UnknownNameError, match="unknown method 'snapkw': did you mean snapkv"):
        shelf.check_name("snapkw")


@pytest.mark.parametrize(
    "arguments",
    [
        ["methods"],
        ["methods", "snapkv"],
        ["methods", "snapkw"],
        ["run", "-q", "hi", "--method", "snapkw:window=8"],
        ["inspect", "-q", "hi", "--method", "snapkw"],
        ["chat", "--method", "snapkw"],
        ["bench", "--methods", "knorm,snapkw"],
        ["fit", "snapkw"],
    ],
    ids=" ".join,
)
def test_names_are_known_before_torch_is(arguments):
    code = (
        "import sys; from laconic.cli import app\n"
        f"try: app({arguments!r})\n"
        "except SystemExit as end: print(end.code, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    code, heavy = done.stdout.split()[-2:]
    assert heavy == "False"
    if arguments == ["methods"]:
        assert code == "0" and all(name in done.stdout for name in shelf.lines())
    elif arguments == ["methods", "snapkv"]:
        assert code == "0" and "laconic.SnapKV" in done.stdout
    else:
        assert code == "2" and "did you mean snapkv" in done.stderr
