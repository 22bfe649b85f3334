"""The Language of Visual Tokens as a lens (arXiv 2411.05001)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from laconic.errors import CodesError
from laconic.lens import LensMethod
from laconic.method import register
from laconic.methods.lens.visual_language_statistics.corpus import Document
from laconic.methods.lens.visual_language_statistics.statistics import compare, stats


@register(
    "visual_language_statistics",
    site="lens",
    modality="image, text",
    mechanism="corpus statistics",
    source="arXiv 2411.05001",
    query_aware=False,
    inferred="all estimators: the paper names the statistics; see the page",
)
@dataclass(kw_only=True)
class VisualLanguageStatistics(LensMethod):
    """Ask of the codes of images what linguists ask of text: Zipf, new types, entropy, compression, beside null models.

    Args:
        codes: a folder of files that `laconic encode` wrote, each a document; all of one codec.
        rows: lines that the codes of an image are cut into, for codecs whose tokens are a grid; 0: one line.
        seed: of the null models.

    Raises:
        ValueError: neither codes nor a text, or codes that do not make `rows` lines.
    """

    codes: str = ""
    rows: int = 0
    seed: int = 0

    def look(self, model: Any, tokenizer: Any, text: str | None) -> dict[str, Any]:
        corpora: dict[str, Sequence[Document]] = {}
        if self.codes:
            corpora["codes"] = coded(Path(self.codes).expanduser(), self.rows)
        if text is not None:
            corpora["text"] = worded(text)
        if not corpora:
            raise ValueError(f"{self.name}: give codes=FOLDER, a --context with text, or both to compare them.")
        if len(corpora) == 2:
            return compare(corpora, self.seed)
        ((name, corpus),) = corpora.items()
        return {"corpora": {name: stats(corpus, True, self.seed)}, "distance": {}}


def coded(folder: Path, rows: int = 0) -> list[Document]:
    """The codes of every file of a folder, by name.

    Raises:
        CodesError: no files, vectors instead of numbers, or those of several codecs.
    """
    from laconic.codec.codes import Codes

    found = [Codes.load(path) for path in sorted(folder.glob("*.codes"))]
    if not found:
        raise CodesError(
            f"{folder} holds no files that end in .codes; `laconic encode IMAGE -o {folder}/NAME.codes` writes one."
        )
    if len({codes.codec for codes in found}) > 1 or found[0].alphabet is None:
        raise CodesError(f"{folder} must hold code numbers of one codec.")
    if rows and any(len(codes) % rows for codes in found):
        raise ValueError(f"rows={rows} does not divide the tokens of every file in {folder}.")
    return [codes.values.numpy().reshape(rows, -1) if rows else codes.values.numpy() for codes in found]


def worded(text: str) -> list[Document]:
    """Words in lower case as numbers; every sentence is a document."""
    sentences = [re.findall(r"\w+", sentence.lower()) for sentence in re.split(r"[.!?\n]+\s*", text)]
    numbers: dict[str, int] = {}
    return [np.array([numbers.setdefault(word, len(numbers)) for word in words]) for words in sentences if words]
