"""LangChain: documents that a retriever found, shortened before they go into a prompt.

Run: python examples/langchain_compressor.py        (works without LangChain, on anything with page_content)

In a chain: ContextualCompressionRetriever(base_compressor=DocumentCompressor(method=...), base_retriever=...)
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate
from types import SimpleNamespace
from typing import Any

import laconic

try:
    from langchain_core.documents import BaseDocumentCompressor as Base
except ImportError:
    Base = SimpleNamespace


class DocumentCompressor(Base):
    """Shortens documents together, so that the relevant ones may keep more; one of which nothing stays is left out.

    Fields:
        method: what chooses, an object or its text, ``"NAME:keep=0.3"``.
        tokenizer: of the model that will read the documents; None: the scorer's, or words.
    """

    method: Any = "llmlingua:keep=0.3"
    tokenizer: Any = None

    def compress_documents(self, documents: Sequence[Any], query: str, callbacks: Any = None) -> list[Any]:
        """Copies of the documents with shorter `page_content`, in the order in which the method leaves them."""
        if not documents:
            return []
        texts = [document.page_content for document in documents]
        short = laconic.shorten(texts, self.method, question=query, tokenizer=self.tokenizer)
        piece_ends = list(accumulate(map(len, short.pieces)))
        text_ends = list(accumulate(len(text) + 2 for text in texts))  # a blank line is between them
        kept: dict[int, str] = {}
        for piece in short.kept:
            place = min(bisect_left(text_ends, piece_ends[piece]), len(texts) - 1)
            kept[place] = kept.get(place, "") + short.pieces[piece]
        return [_with(documents[place], text.strip()) for place, text in kept.items() if text.strip()]


def _with(document: Any, text: str) -> Any:
    """A copy of a document with another text; its metadata stays."""
    return type(document)(page_content=text, metadata=dict(document.metadata))


def main() -> None:
    texts = [f"Room {i} is empty and cold, and nobody has been there for years." for i in range(6)]
    texts[4] = "The piano is in the cellar. It was tuned in May by a man from Velden."
    found = [SimpleNamespace(page_content=text, metadata={"page": page}) for page, text in enumerate(texts)]
    for document in DocumentCompressor(method="bm25:keep=0.2").compress_documents(found, "Where is the piano?"):
        print(f"page {document.metadata['page']}: {document.page_content}")


if __name__ == "__main__":
    main()
