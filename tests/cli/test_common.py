"""What all commands share."""

import io
import sys

import pytest

from laconic.cli.common import BAD_INPUT, FAILED, InputError, clean, complain, emit, exit_code, read_text
from laconic.errors import BudgetError, SessionError
from laconic.prompts.text import PromptError


@pytest.mark.parametrize(
    ("error", "code"), [(BudgetError("x"), BAD_INPUT), (ValueError("x"), BAD_INPUT), (SessionError("x"), FAILED)]
)
def test_exit_codes(error, code):
    assert exit_code(error) == code


def test_a_bug_is_named_and_a_known_error_is_not(capsys):
    complain(InputError("give\n  one."))
    complain(KeyError("x"))
    assert capsys.readouterr().err == "error: give one.\nerror: KeyError: 'x' (--debug shows the traceback)\n"


def test_text_files_and_stdin(tmp_path, monkeypatch):
    file = tmp_path / "a.txt"
    file.write_bytes(b"\xef\xbb\xbfGr\xc3\xbc\xc3\x9fe")
    assert read_text(str(file)) == "Grüße"
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"from a pipe")))
    assert read_text("-") == "from a pipe"
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"ab\xff")))
    with pytest.raises(PromptError, match="stdin is not UTF-8: byte 0xff at offset 2"):
        read_text("-")


def test_control_characters_do_nothing_on_a_terminal():
    assert clean("a\x1b[31m\n\tß\x9b\x07") == "a\ufffd[31m\n\tß\ufffd\ufffd"


def test_json_is_strict_and_knows_paths(capsys, tmp_path):
    emit({"file": tmp_path, "name": "ß"})
    assert capsys.readouterr().out == f'{{\n  "file": "{tmp_path}",\n  "name": "ß"\n}}\n'
    with pytest.raises(ValueError, match="not JSON compliant"):
        emit(float("nan"))
