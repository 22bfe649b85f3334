"""A list of words with their categories and, where norms were published, how typical people find them."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

COLUMNS = ("item", "category", "typicality")


@dataclass(frozen=True)
class Words:
    """Items with categories.

    Attributes:
        labels: number of each item's category in `names`. `typicality`: higher is more typical; None without norms.
    """

    items: tuple[str, ...]
    labels: NDArray[np.int64]
    names: tuple[str, ...]
    typicality: NDArray[np.float64] | None

    @classmethod
    def load(cls, path: str | Path, lower_is_typical: bool = False) -> Words:
        """From a CSV file with the columns item, category and, if there are norms, typicality.

        Args:
            lower_is_typical: the norms are ranks, 1 for the most typical.

        Raises:
            ValueError: no such file, columns that are missing, a rating that is no number, or too few categories or items.
        """
        try:
            with Path(path).expanduser().open(newline="", encoding="utf-8") as file:
                rows = list(csv.DictReader(file))
        except OSError as error:
            raise ValueError(
                f"words={str(path)!r} cannot be read: {error.strerror}; give a CSV with {', '.join(COLUMNS)}."
            ) from None
        if not rows or not {"item", "category"} <= rows[0].keys():
            raise ValueError(f"{path}: the first line must name the columns item, category and, with norms, typicality.")
        names = tuple(sorted({row["category"] for row in rows}))
        labels = np.array([names.index(row["category"]) for row in rows], np.int64)
        if len(names) < 2 or np.bincount(labels).min() < 2:
            raise ValueError(f"{path}: give two categories or more, each with two items or more.")
        try:
            rated = "typicality" in rows[0]
            ratings = np.array([float(row["typicality"]) for row in rows]) if rated else None
        except (TypeError, ValueError) as error:
            raise ValueError(f"{path}: a typicality is no number: {error}.") from None
        ratings = -ratings if ratings is not None and lower_is_typical else ratings
        return cls(tuple(row["item"] for row in rows), labels, names, ratings)
