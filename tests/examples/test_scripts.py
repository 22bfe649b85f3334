"""Every script in examples/ runs as it is and prints what its docstring promises."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

from laconic.method import CATALOGUE

EXAMPLES = Path(__file__).parents[2] / "examples"
NOTE = (EXAMPLES / "note.txt").read_text(encoding="utf-8")


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]):
    """`run("quick_start.py")` -> the lines that the script prints."""
    before = set(CATALOGUE)

    def lines(script: str) -> list[str]:
        runpy.run_path(str(EXAMPLES / script), run_name="__main__")
        return capsys.readouterr().out.splitlines()

    yield lines
    for name in CATALOGUE.keys() - before:  # what the script registered
        del CATALOGUE[name]


def test_quick_start(run):
    answer, stored = run("quick_start.py")
    assert answer == "The code for falcon is 4815263." and answer in NOTE
    kept, full = (int(word.replace(",", "")) for word in stored.split()[:3:2])
    assert kept < 0.11 * full


def test_many_questions(run):
    size, *answers = run("many_questions.py")
    assert [answer in NOTE for answer in answers] == [True] * 4
    assert len(set(answers)) == 4
    on_disk, full = (int(word.replace(",", "").rstrip(".")) for word in size.split() if word[0].isdigit())
    assert on_disk < 0.3 * full


def test_images(run):
    assert run("images.py") == ["HET", "visual tokens: 144 in the prompt, 36 in the first layer"]


def test_documents_for_a_prompt(run):
    assert run("langchain_compressor.py")[0].startswith("page 4: The piano is in the cellar.")


def test_a_cache_method_of_ones_own(run):
    (line,) = run("loud_values/loud_values.py")
    assert line.startswith("kept 57%; in layer 0, head 0 the tokens [")


def test_a_method_of_ones_own_on_visual_tokens(run):
    assert run("loud_patches/loud_patches.py")[-1] == "visual tokens: 144 in the prompt, 72 in the first layer"


def test_no_script_is_forgotten():
    here = Path(__file__).read_text(encoding="utf-8")
    for script in EXAMPLES.rglob("*.py"):
        if "__main__" in script.read_text(encoding="utf-8"):
            assert f'run("{script.relative_to(EXAMPLES)}")' in here, f"no test runs {script}"
