"""A causal language model that says how much each token of a text surprises it."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.cache_utils import DynamicCache

from laconic.cache import attention
from laconic.errors import SessionError
from laconic.families import family_of
from laconic.loading import load, tokenizer_of
from laconic.measure.cost import FlopCounter, Shape

BATCH = 512
"""Most tokens that are scored in one pass, padding included, where texts are scored side by side."""


class Scorer:
    """A model that scores, and what it has cost so far.

    Args:
        model, reader: as `laconic.load` gives them; the model may be the one that will answer, outside of a session.
        name: what the scorer is called in figures.

    Raises:
        SessionError: the model is in a laconic session, where it does not store everything.
    """

    def __init__(self, model: PreTrainedModel, reader: Any, name: str = ""):
        self.model, self.tokenizer = model, tokenizer_of(reader)
        self.name = name or getattr(model.config, "_name_or_path", "") or type(model).__name__
        stack = family_of(model).stack(model)
        if stack.config._attn_implementation == attention.NAME:
            raise SessionError("the scorer is in a laconic session; close that one first, or load the model once more.")
        self._counter = FlopCounter(Shape.of(model, stack))
        self._options = ("logits_to_keep",) if "logits_to_keep" in inspect.signature(model.forward).parameters else ()

    @classmethod
    def of(cls, given: str | Scorer) -> Scorer:
        """A scorer with its figures at zero: the model of that name, loaded once and kept, or that of another scorer."""
        if isinstance(given, Scorer):
            return cls(given.model, given.tokenizer, given.name)
        return cls(*_loaded(given), given)

    def __str__(self) -> str:
        return self.name

    @property
    def flops(self) -> int:
        """What all passes so far have cost."""
        return self._counter.prefill

    @property
    def limit(self) -> int:
        """Most tokens that it can see at once."""
        return int(getattr(self.model.config.get_text_config(), "max_position_embeddings", None) or 2**31)

    def logits(self, ids: Sequence[Sequence[int]], wanted: int, cache: DynamicCache | None = None) -> Tensor:
        """Run rows of equal length after what `cache` holds -> logits [B, wanted, V] at the last `wanted` positions."""
        rows = torch.tensor(ids, device=self.model.device)
        batch, new = rows.shape
        old = 0 if cache is None else cache.get_seq_length()
        options = dict.fromkeys(self._options, wanted)
        with torch.inference_mode():
            found = self.model(input_ids=rows, past_key_values=cache, use_cache=cache is not None, **options)
        for layer in range(self._counter.shape.layers):
            self._counter.layer(layer, batch, new, batch * (new * old + new * (new + 1) // 2), True)
        self._counter.head(batch * wanted, True)
        logits: Tensor = found.logits[:, -wanted:]
        return logits

    def surprise(self, ids: Sequence[int], lead: Sequence[int] = ()) -> list[float]:
        """Negative log-likelihood of each token after those before it, in nats; `lead` is read first. Without one, nothing
        is known of the first token, which is infinitely surprising."""
        prefix, found = Prefix(self, lead), []
        for start in range(0, len(ids), BATCH // 2):  # logits of a long text at once would fill the memory
            window = list(ids[start : start + BATCH // 2])
            found += prefix.score(window)
            prefix.keep(window)
        return found

    def side_by_side(self, texts: Sequence[Sequence[int]], lead: int) -> list[list[float]]:
        """`surprise` of each text alone, after the one token `lead`; several texts at once."""
        found: list[list[float]] = [[] for _ in texts]
        order = sorted((i for i, ids in enumerate(texts) if ids), key=lambda i: len(texts[i]))
        while order:
            longest = len(texts[order[-1]])
            group = [order.pop() for _ in range(min(len(order), max(1, BATCH // (longest + 1))))]
            # padding on the right is out of sight of everything before it
            rows = [[lead, *texts[i]] + [lead] * (longest - len(texts[i])) for i in group]
            for logits, i in zip(self.logits(rows, longest + 1), group, strict=True):
                found[i] = _surprise(logits, texts[i])
        return found


class Prefix:
    """What a scorer has read of a text that is being shortened: its cache holds only what was kept.

    The keys and values of the kept tokens are computed again, together with the next window, because those of the first
    reading had seen dropped tokens. So a window's scores are those of a plain reading of the kept tokens and the window.

    Args:
        opening: tokens that come before the text.
    """

    def __init__(self, scorer: Scorer, opening: Sequence[int] = ()):
        self.scorer, self.kept = scorer, list(opening)
        self._cache = DynamicCache(config=scorer.model.config)

    def score(self, window: Sequence[int]) -> list[float]:
        """Negative log-likelihood of each token of `window` after what was kept, in nats; infinite for a first token of all.

        Raises:
            ValueError: half of the scorer's positions are fewer than the window's tokens.
        """
        limit = self.scorer.limit
        if 2 * len(window) > limit:
            raise ValueError(
                f"a window of {len(window)} tokens is over half of the {limit} positions of {self.scorer.name}."
            )
        if len(self.kept) + len(window) > limit:  # the beginning goes out of sight
            self.kept = self.kept[-(limit // 2) :]
            self._cache = DynamicCache(config=self.scorer.model.config)
        # the last token is always read again, for what follows it
        stored = min(self._cache.get_seq_length(), max(len(self.kept) - 1, 0))
        self._crop(stored)
        first = not self.kept
        wanted = len(window) - 1 if first else len(window)
        logits = self.scorer.logits([[*self.kept[stored:], *window]], wanted + 1, self._cache)[0]
        self._crop(len(self.kept))
        return [float("inf"), *_surprise(logits, window[1:])] if first else _surprise(logits, window)

    def keep(self, tokens: Sequence[int]) -> None:
        """`tokens` of the text stay and are seen by what is scored next."""
        self.kept += tokens

    def _crop(self, length: int) -> None:
        held = self._cache.get_seq_length()
        if held > length:
            self._cache.crop(length - held)


def _surprise(logits: Tensor, ids: Sequence[int]) -> list[float]:
    """Negative log-likelihoods of `ids`, from the logits [>= len(ids), V] that predict them, one after another."""
    logits = logits[: len(ids)].float()
    chosen = torch.tensor(ids, device=logits.device, dtype=torch.long)[:, None]
    found: list[float] = (logits.logsumexp(-1) - logits.gather(-1, chosen)[:, 0]).tolist()
    return found


@lru_cache(maxsize=2)
def _loaded(name: str) -> tuple[PreTrainedModel, Any]:
    return load(name)
