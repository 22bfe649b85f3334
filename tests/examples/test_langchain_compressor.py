"""The document compressor of the examples, with stand-ins for LangChain's documents."""

from dataclasses import dataclass, field

import pytest
from helpers.text_tools import scorer

import laconic
from examples.langchain_compressor import DocumentCompressor


@dataclass
class Document:
    """What LangChain's class of the name has."""

    page_content: str
    metadata: dict = field(default_factory=dict)


TEXTS = [
    "Room one is empty. It is cold.",
    "The piano is in the cellar. It was tuned in May.",
    "Room two is empty.",
]
DOCUMENTS = [Document(text, {"page": page}) for page, text in enumerate(TEXTS)]


def test_the_document_with_the_answer_stays():
    (found,) = DocumentCompressor(method="bm25:keep=0.27,chunk=6").compress_documents(DOCUMENTS, "Where is the piano?")
    assert found == Document("The piano is in the cellar.", {"page": 1}) and DOCUMENTS[1].page_content == TEXTS[1]


@pytest.mark.parametrize("order", ["original", "sort"])
def test_every_text_goes_back_into_its_own_document(order):
    method = laconic.LongLLMLingua(keep=0.7, scorer=scorer(), order=order)
    found = DocumentCompressor(method=method).compress_documents(DOCUMENTS, "Where is the piano?")
    assert len({document.metadata["page"] for document in found}) == len(found) >= 2
    for document in found:
        letters = iter(TEXTS[document.metadata["page"]])
        assert all(letter in letters for letter in document.page_content)


def test_no_documents():
    assert DocumentCompressor(method="bm25:keep=0.3").compress_documents([], "Where?") == []
