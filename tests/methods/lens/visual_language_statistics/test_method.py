"""The lens: files of codes and a text go in, plain values come out."""

import pytest
import torch

import laconic
from laconic.codec.codes import Codes
from laconic.errors import CodesError, SessionError
from laconic.methods.lens.visual_language_statistics.method import VisualLanguageStatistics, coded, worded

TEXT = "The cat sat on the mat. A dog ran to the cat! Did the mat fly? No. The dog saw a bird on the mat. " * 3


def files(folder, codec="c", n=6, length=16):
    folder.mkdir(exist_ok=True)
    for i in range(n):
        values = torch.randint(40, (length,), generator=torch.Generator().manual_seed(i))
        Codes(codec, "d", (8, 8, 3), values, 64).save(folder / f"{codec}{i}.codes")
    return folder


def test_files_become_documents_by_name(tmp_path):
    found = coded(files(tmp_path / "a"))
    assert len(found) == 6 and found[0].shape == (16,) and coded(tmp_path / "a", 4)[0].shape == (4, 4)


def test_sentences_become_documents_of_words():
    found = worded("The cat. the CAT sat!")
    assert [d.tolist() for d in found] == [[0, 1], [0, 1, 2]]


def test_codes_and_text_are_compared(tmp_path):
    found = VisualLanguageStatistics(codes=str(files(tmp_path / "a"))).look(None, None, TEXT)
    assert set(found["corpora"]) == {"codes", "text"} and list(found["distance"]) == ["codes / text"]
    alone = VisualLanguageStatistics(codes=str(tmp_path / "a"), rows=4).look(None, None, None)
    assert set(alone["corpora"]) == {"codes"} and "row_shuffled" in alone["corpora"]["codes"]["null"]


def test_what_cannot_be_looked_at_is_named(tmp_path):
    with pytest.raises(ValueError, match="give codes=FOLDER, a --context with text, or both"):
        VisualLanguageStatistics().look(None, None, None)
    with pytest.raises(CodesError, match=r"holds no files that end in \.codes"):
        coded(tmp_path)
    files(tmp_path / "a"), files(tmp_path / "a", "other")
    with pytest.raises(CodesError, match="must hold code numbers of one codec"):
        coded(tmp_path / "a")
    with pytest.raises(ValueError, match="rows=5 does not divide the tokens"):
        coded(files(tmp_path / "b"), 5)


def test_a_session_refuses_it(llama):
    session = laconic.compress(llama, VisualLanguageStatistics())
    with pytest.raises(SessionError, match="visual_language_statistics is a lens: it looks, and changes no model"):
        session.__enter__()
