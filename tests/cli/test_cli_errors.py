"""Bad input: one clear line on stderr, exit status 2, nothing on stdout."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import laconic as api


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("--method", "snapk", "--keep", 0.1), ("unknown method 'snapk'", "did you mean snapkv")),
        (("--method", "snapkv:windw=3"), ("no parameter 'windw'", "window")),
        (("--method", "snapkv", "--keep", 0), ("keep=0", "0 < keep <= 1")),
        (("--method", "snapkv", "--keep", 1.5), ("keep=1.5", "0 < keep <= 1")),
        (("--method", "snapkv", "--keep", "nan"), ("keep=nan",)),
        (("--method", "snapkv", "--tokens", 0), ("tokens=0", "at least 1")),
        (("--method", "snapkv", "--bytes", 1), ("bytes=1 is too little for a single token",)),
        (("--method", "snapkv", "--keep", 0.5, "--tokens", 5), ("--keep and --tokens exclude each other",)),
        (("--keep", 0.5), ("--keep needs a --method",)),
        (("--method", "snapkv", "--method", "knorm"), ("snapkv and knorm both claim", "cache.entries")),
        (("--method", "adakv:scorer=fastkvv"), ("fastkv",)),
        (("--protect", "not in there"), ("not in there", "not in the prompt")),
        (("--protect", "10:90000"), ("10, 90000", "beyond the prompt")),
        (("--protect", "system"), ("no system turn",)),
        (("--dtype", "int3"), ("--dtype int3", "float32")),
        (("--device", "cuda:77"), ("cannot load",)),
        (("--temperature", 0), ("--temperature 0.0 must be above 0",)),
        (("--model", "/no/such/folder"), ("/no/such/folder", "does not exist")),
        (("--model", "testbed/ml"), ("testbed/lm",)),
        (("--context", "/no/such/file.txt"), ("/no/such/file.txt", "No such file")),
        (("--context", "/"), ("cannot read", "directory")),
    ],
)
@pytest.mark.parametrize("command", ["run", "inspect"])
def test_bad_input(laconic, model, context, command, args, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    base = {"--model": model, "--context": context, "--question": "Wo?", "--max-new-tokens": 2}
    base |= {k: v for k, v in zip(args[::2], args[1::2], strict=True) if k in ("--model", "--context")}
    rest = [x for k, v in zip(args[::2], args[1::2], strict=True) if k not in base for x in (k, v)]
    line = laconic.bad(2, command, *[x for pair in base.items() for x in pair], *rest)
    assert line.startswith("error: ") and all(word in line for word in words), line
    assert not Path("inspect.html").exists()


def test_undecodable_file_names_the_byte(laconic, model, tmp_path):
    path = tmp_path / "latin.txt"
    path.write_bytes("good Ä then ".encode() + b"\xe4 bad")
    line = laconic.bad(2, "run", "--model", model, "--context", path)
    assert "not UTF-8" in line and "0xe4 at offset 13" in line


@pytest.mark.parametrize("content", ["", " \n\t"])
def test_empty_prompt(laconic, model, tmp_path, content):
    path = tmp_path / "empty.txt"
    path.write_text(content)
    for question in ([], ["-q", "Wo?"]):
        assert "empty.txt is empty" in laconic.bad(2, "run", "--model", model, "--context", path, *question)
    assert "empty.txt is empty" in laconic.bad(2, "inspect", "--model", model, "--context", path, "--json")
    assert "prompt is empty" in laconic.bad(2, "run", "--model", model)


def test_later_needs_a_context(laconic, model):
    assert "give --context" in laconic.bad(2, "run", "--model", model, "-q", "Wo?", "--later")


def test_a_folder_without_a_model(laconic, context, tmp_path):
    assert "cannot load --model" in laconic.bad(2, "run", "--model", tmp_path, "--context", context)


def test_out_in_a_missing_folder(laconic, model, context):
    line = laconic.bad(2, "inspect", "--model", model, "--context", context, "--out", "/no/such/folder/x.html")
    assert "folder that exists" in line


@pytest.mark.parametrize(
    "args", [("run", "--max-new-tokens", 0), ("run", "--nonsense"), ("nonsense",), ("run", "--keep", "much")]
)
def test_usage_errors_exit_with_2(laconic, args):
    assert laconic(*args).exit_code == 2


def test_bugs_exit_with_1_and_debug_shows_them(laconic, model, context, monkeypatch):
    from laconic.engine.engine import Engine

    def broken(*args, **kwargs):
        raise KeyError("surprise")

    monkeypatch.setattr(Engine, "answer", broken)
    line = laconic.bad(1, "run", "--model", model, "--context", context)
    assert "KeyError" in line and "--debug" in line
    shown = laconic("run", "--model", model, "--context", context, "--debug")
    assert isinstance(shown.exception, KeyError)


def test_interrupt_exits_with_130(laconic, model, context, monkeypatch):
    from laconic.engine.engine import Engine

    def stopped(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(Engine, "answer", stopped)
    assert laconic.bad(130, "run", "--model", model, "--context", context) == "interrupted"


@pytest.mark.slow
def test_a_real_sigint_exits_with_130(model, tmp_path):
    """Ctrl-C while the model decodes."""
    script = (
        "import os, signal, sys; from laconic.cli import main; import laconic.engine.conversation as talk\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a job in the background starts with it ignored
        "real = talk.generate\n"
        "def slow(*a, **k):\n"
        "    os.kill(os.getpid(), signal.SIGINT); return real(*a, **k)\n"
        "talk.generate = slow\n"
        f"sys.argv = ['laconic', 'run', '--model', {model!r}, '-q', 'Wo?']\n"
        "main()"
    )
    source = str(Path(api.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=300,
        env={**os.environ, "PYTHONPATH": source, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 130, done.stderr
    assert done.stderr.strip() == "interrupted" and done.stdout == ""


def test_version_and_help(laconic):
    assert laconic("--version").stdout.strip() == f"laconic {api.__version__}"
    for command in ("run", "inspect", "methods", "bench", "doctor"):
        assert command in laconic("--help").stdout
        assert "--json" in laconic(command, "--help").stdout


@pytest.mark.slow
def test_a_closed_pipe_is_no_traceback():
    source = str(Path(api.__file__).parents[1])
    process = subprocess.Popen(
        [sys.executable, "-m", "laconic.cli", "methods", "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": source, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    process.stdout.close()
    assert b"Traceback" not in process.stderr.read()
    assert process.wait(300) in (0, 1)
