"""What is imported when: nothing heavy before it is used."""

import copy
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

import laconic

HEAVY = ("torch", "transformers", "plotly", "av", "lm_eval", "peft", "sklearn")
SOURCE = str(Path(laconic.__file__).parents[1])


def python(script: str) -> str:
    """What a fresh interpreter prints."""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=300,
        env={**os.environ, "PYTHONPATH": SOURCE, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def loaded_after(script: str, names: tuple[str, ...]) -> list[str]:
    """Which of the modules `names` a fresh interpreter has imported after `script`."""
    tail = f"\nimport sys; print('LOADED', *[n for n in {names!r} if n in sys.modules])"
    return python(script + tail).rpartition("LOADED")[2].split()


def command(*args: str) -> str:
    """A script that runs the command line and goes on."""
    return (
        f"import sys; sys.argv = {['laconic', *args]!r}\nfrom laconic.cli import main\ntry: main()\nexcept SystemExit: pass"
    )


@pytest.mark.parametrize(
    "script",
    [
        "import laconic",
        "import laconic; laconic.__version__; laconic.BudgetError",
        "import laconic; laconic.SegmentStore().entries()",
    ],
)
def test_importing_laconic_imports_nothing_heavy(script):
    assert loaded_after(script, HEAVY) == []


@pytest.mark.parametrize(
    "args",
    [("--help",), ("--version",), ("run", "--help"), ("inspect", "--help"), ("bench", "--help"), ("methods", "--help")],
)
def test_help_imports_nothing_heavy(args):
    assert loaded_after(command(*args), HEAVY) == []


def test_bad_options_are_refused_before_anything_heavy_is_imported():
    assert loaded_after(command("run", "--keep", "0.5"), HEAVY) == []
    assert loaded_after(command("run"), HEAVY) == []  # an empty prompt


def test_a_run_on_text_imports_no_extras():
    """transformers itself imports scikit-learn where that is installed."""
    args = ("run", "--question", "What?", "--max-new-tokens", "1", "--json")
    assert loaded_after(command(*args), HEAVY[:-1]) == ["torch", "transformers"]


def test_help_takes_less_than_a_second_of_processor_time():
    script = command("--help") + "\nimport time; print('CPU', time.process_time())"
    assert float(python(script).rpartition("CPU")[2]) < 1


# -- the face of the package -----------------------------------------------------------------------------------------
def test_dir_names_all_that_can_be_had():
    names = dir(laconic)
    assert {"compress", "list_methods", "create_method", "load", "SnapKV", "FastV", "BudgetError", "__version__"} <= set(
        names
    )
    assert names == sorted(set(names))
    for name in names:
        assert getattr(laconic, name) is not None or name.startswith("__"), name


def test_names_are_the_objects_of_their_modules():
    from laconic.cache.saved import load
    from laconic.methods.cache.snapkv import SnapKV
    from laconic.session import compress

    assert laconic.compress is compress and laconic.load_cache is load and laconic.SnapKV is SnapKV


def test_unknown_names_are_attribute_errors():
    for name in ("nothing", "Nothing", "_private"):
        with pytest.raises(AttributeError, match=f"module 'laconic' has no attribute '{name}'"):
            getattr(laconic, name)
    assert not hasattr(laconic, "__wrapped__")
    with pytest.raises(ImportError, match="cannot import name 'Nothing'"):
        from laconic import Nothing  # noqa: F401


def test_the_old_name_of_create_method_works_with_a_warning():
    laconic.__dict__.pop("create", None)
    with pytest.warns(DeprecationWarning, match=r"laconic\.create is deprecated .* use laconic\.create_method"):
        assert laconic.create is laconic.create_method


def test_methods_can_be_pickled_and_copied():
    method = laconic.create_method("snapkv:window=8", keep=0.25)
    assert pickle.loads(pickle.dumps(method)) == copy.deepcopy(method) == method
