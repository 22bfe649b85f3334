"""From Tokens to Thoughts as a lens (arXiv 2505.17117)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from laconic import checks
from laconic.lens import LensMethod
from laconic.method import register
from laconic.methods.lens.tokens_to_thoughts.agreement import ami, ari, nmi, spearman
from laconic.methods.lens.tokens_to_thoughts.embeddings import contextual, static
from laconic.methods.lens.tokens_to_thoughts.partition import (
    NORMS,
    balanced,
    complexity,
    distortion,
    kmeans,
    normalised,
    spectrum_entropy,
)
from laconic.methods.lens.tokens_to_thoughts.words import Words


@register(
    "tokens_to_thoughts",
    site="lens",
    mechanism="rate-distortion of word clusters",
    source="arXiv 2505.17117",
    query_aware=False,
    inferred="how vectors are scaled (the text states nothing); the cluster entropy; the fair control",
)
@dataclass(kw_only=True)
class TokensToThoughts(LensMethod):
    """Set a model's clusters of words beside human categories: whether they match, and who pays fewer bits and less spread.

    Args:
        words: a CSV file with the columns item, category and, where norms were published, typicality.
        lower_is_typical: the norms are ranks, 1 for the most typical item.
        normalise: "none", "unit_norm" or "unit_variance": D has a scale, so L compares spaces only at a common one.
        beta: weight of D in L.
        restarts, seed: of k-means.

    Raises:
        ValueError: no words, or a setting out of range.
    """

    words: str = ""
    lower_is_typical: bool = False
    normalise: str = "unit_variance"
    beta: float = 1.0
    restarts: int = 10
    seed: int = 0

    needs_model: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.one_of(self, "normalise", *NORMS)
        checks.at_least(self, "beta", 0)
        checks.whole(self, "restarts", 1)

    def look(self, model: Any, tokenizer: Any, text: str | None) -> dict[str, Any]:
        if not self.words:
            raise ValueError(
                f"{self.name}: give words=FILE, a CSV with the columns item, category and, with norms, typicality."
            )
        words = Words.load(self.words, self.lower_is_typical)
        layers = contextual(model, tokenizer, words.items)
        first = static(model, tokenizer, words.items)
        categories = static(model, tokenizer, words.names), contextual(model, tokenizer, words.names)
        other = layers[len(layers) // 2]
        by_layer = [self.judged(space, words, categories[1][i], first) for i, space in enumerate(layers)]
        peak = int(np.argmax([found["ami"] for found in by_layer]))
        return {
            "items": len(words.items),
            "categories": len(words.names),
            "normalise": self.normalise,
            "static": self.judged(first, words, categories[0], other),
            "layers": {"ami": [found["ami"] for found in by_layer], "mean": float(np.mean([f["ami"] for f in by_layer]))},
            "peak": {"layer": peak, "chosen_by": "ami, so an upper bound"} | by_layer[peak],
        }

    def judged(
        self,
        space: NDArray[np.float64],
        words: Words,
        categories: NDArray[np.float64],
        other: NDArray[np.float64],
    ) -> dict[str, Any]:
        """One space of items [n, d].

        Args:
            categories: the categories' own vectors [K, d]. `other`: another space of the items, whose clusters are the
                fair control: like the human partition they were not made for this space.
        """
        x = normalised(space, self.normalise)
        clusters = kmeans(x, len(words.names), self.seed, self.restarts)
        controls = {
            "clusters": clusters,
            "human": words.labels,
            "other_space": kmeans(normalised(other, self.normalise), len(words.names), self.seed, self.restarts),
            "random": balanced(len(words.items), len(words.names), self.seed),
        }
        agreement = {name: measure(clusters, words.labels) for name, measure in (("ami", ami), ("nmi", nmi), ("ari", ari))}
        found: dict[str, Any] = {**agreement, "cost": {name: self.cost(x, labels) for name, labels in controls.items()}}
        if words.typicality is not None:
            found["typicality"] = typicality(space, words, categories)
        return found

    def cost(self, x: NDArray[np.float64], labels: NDArray[np.int64]) -> dict[str, float]:
        """I, D and L of a partition, and its clusters' entropy."""
        bits, spread = complexity(labels), distortion(x, labels)
        return {"I": bits, "D": spread, "L": bits + self.beta * spread, "entropy": spectrum_entropy(x, labels)}


def typicality(space: NDArray[np.float64], words: Words, categories: NDArray[np.float64]) -> dict[str, float]:
    """Spearman's rho of typicality and the cosine of an item [n, d] to the word of its category [K, d]: mean over the
    categories in which both vary, and how many those are. Ratings of different categories are never pooled."""
    assert words.typicality is not None
    items, centres = normalised(space, "unit_norm"), normalised(categories, "unit_norm")
    near = (items * centres[words.labels]).sum(1)
    by_category = [spearman(near[words.labels == c], words.typicality[words.labels == c]) for c in range(len(words.names))]
    known = [rho for rho in by_category if rho == rho]
    return {"rho": float(np.mean(known)) if known else 0.0, "categories": len(known)}
