"""The script: Ctrl-C at any time is one line and exit status 130."""

import signal
import subprocess
import sys

import pytest

from laconic.__main__ import interrupted

BEGIN = "import sys; from laconic.__main__ import main; sys.argv = ['laconic', 'doctor']\n"
AT = {
    "the command line": "laconic.cli",
    "torch": "torch.nn",
    "a library that swallows it": "swallows",
}
HOOK = """
import os, pathlib, signal
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == {name!r}:
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Finder())
"""
SWALLOWS = """
import types, laconic.version as careless
class Loader:
    def create_module(self, spec): return None
    def exec_module(self, module):
        try: import swallows
        except BaseException: pass
class Late:
    def find_spec(self, name, path=None, target=None):
        if name == "laconic.cli":
            sys.meta_path.remove(self)
            import importlib.util
            return importlib.util.spec_from_loader(name, Loader())
sys.meta_path.insert(0, Late())
"""


@pytest.mark.parametrize("place", AT)
def test_ctrl_c_while_modules_are_imported(place):
    code = BEGIN + HOOK.format(name=AT[place]) + (SWALLOWS if AT[place] == "swallows" else "") + "main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "interrupted\n")


def test_ctrl_c_later_is_an_exception_so_that_everything_is_put_in_order():
    with pytest.raises(KeyboardInterrupt):
        interrupted(signal.SIGINT, sys._getframe())


def test_the_module_is_the_script():
    done = subprocess.run([sys.executable, "-m", "laconic", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("laconic ")
