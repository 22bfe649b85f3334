"""The README stays true: its Python and its commands run, and it names every command."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from laconic.cli import app

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
RUNS = re.findall(r"^laconic (run .*)$", README, flags=re.M)
REAL = [command for command in RUNS if re.search(r"--model (smollm2|whisper-tiny-en)", command)]
SHIPPED = [command for command in RUNS if command not in REAL]


def test_it_begins_with_how_to_install_it():
    assert re.match(r"# laconic\n\n```\npip install laconic-transformers\n```\n", README)


def test_its_python_answers(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(ROOT)
    (code,) = re.findall(r"```python\n(.*?)```", README, flags=re.S)
    exec(code, {})
    *asked, context, generated = capsys.readouterr().out.splitlines()
    assert asked == ["The code for otter is 9052316.", "The code for falcon is 4815263."]
    assert context.startswith("Context(") and generated.strip().startswith("9052316")


def test_its_commands_answer(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(ROOT)
    answers = []
    for command in SHIPPED:
        done = CliRunner().invoke(app, shlex.split(command))
        assert done.exit_code == 0, done.output
        answers.append(done.stdout.splitlines()[0])
    assert answers == ["The code for falcon is 4815263.", "HET", "orange cross"]


@pytest.mark.slow
def test_the_real_models_answer(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(ROOT)
    answers = []
    for command in REAL:
        done = CliRunner().invoke(app, shlex.split(command))
        assert done.exit_code == 0, done.output
        answers.append(done.stdout.splitlines()[0])
    heard = "Good morning, the meeting moves from Tuesday to Thursday in the large room on the second floor. "
    assert answers == ["The code for falcon is 4815263.", heard + "Remember to bring your keys."]


def test_the_demo_asks_the_same():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    asked = [
        re.sub(r" --(compare|model testbed/lm)", "", command) for command in re.findall(r"\blaconic (run .*)", makefile)
    ]
    assert asked == [command.replace(" --compare", "") for command in RUNS]


def test_it_names_every_command():
    commands = {command.name or command.callback.__name__ for command in app.registered_commands if not command.hidden}
    commands |= {group.name for group in app.registered_groups}
    assert set(re.findall(r"`laconic (\w+)`", README)) == commands
