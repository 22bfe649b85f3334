"""Text files are read strictly: UTF-8, or an error that says where it is not."""

from pathlib import Path

import pytest

from laconic.prompts.files import read_text
from laconic.prompts.text import PromptError


def test_a_mark_at_the_beginning_is_dropped(tmp_path: Path):
    file = tmp_path / "a.txt"
    file.write_bytes(b"\xef\xbb\xbfGr\xc3\xbc\xc3\x9fe")
    assert read_text(file) == "Grüße"


def test_what_cannot_be_read_is_named(tmp_path: Path):
    file = tmp_path / "a.txt"
    file.write_bytes(b"ab\xff")
    with pytest.raises(PromptError, match=r"a\.txt is not UTF-8: byte 0xff at offset 2 .*iconv"):
        read_text(file)
    with pytest.raises(PromptError, match="Is a directory"):
        read_text(tmp_path)
    with pytest.raises(PromptError, match=r"cannot read .*b\.txt: No such file"):
        read_text(tmp_path / "b.txt")
