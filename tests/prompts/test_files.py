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


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"%PDF-1.4\n", r"a\.txt is a PDF document; .*pdftotext"),
        (b"PK\x03\x04\x14\0", "is a ZIP archive, as Word"),
        (b"\x1f\x8b\x08\0", "is compressed; .*gunzip"),
        ("text".encode("utf-16"), "is UTF-16; .*iconv -f utf-16"),
    ],
)
def test_files_of_other_kinds_are_called_by_their_name(tmp_path: Path, data: bytes, said: str):
    file = tmp_path / "a.txt"
    file.write_bytes(data)
    with pytest.raises(PromptError, match=said):
        read_text(file)
