"""What one forward pass brings to one layer of the cache."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from laconic.cache.hooks import DescribesEntries
from laconic.errors import UnsupportedModelError

if TYPE_CHECKING:
    from laconic.cache.layer import CompressedLayer


@dataclass
class Pass:
    """What one forward pass brings to one layer.

    Attributes:
        queries: RoPE and q-norm applied, [B, H, T, D].
        keys, values: the T new entries, [B, Hkv, T, D].
        columns: of the new entries, [B, Hkv, T] each; those that a default explains are left out.
        scale, softcap: of the attention.
        pseudo: queries [B, H, P, D], keys and values of pseudo tokens, which run after the real ones and are not stored;
            None when there are none. `pseudo_lse`: log-sum-exp of each of their queries over all that it attends, [B, H, P].
    """

    queries: torch.Tensor
    keys: torch.Tensor
    values: torch.Tensor
    columns: dict[str, torch.Tensor]
    scale: float
    softcap: float | None
    pseudo: tuple[torch.Tensor, torch.Tensor, torch.Tensor] | None = None
    pseudo_lse: torch.Tensor | None = None

    def rows(self, start: int, stop: int) -> Pass:
        """Of tokens `start` to `stop` alone, without pseudo tokens."""
        tokens = slice(start, stop)
        columns = {name: column[:, :, tokens] for name, column in self.columns.items()}
        queries, keys, values = (x[:, :, tokens] for x in (self.queries, self.keys, self.values))
        return Pass(queries, keys, values, columns, self.scale, self.softcap)

    def copied(self) -> Pass:
        """The same in memory of its own, without pseudo tokens."""
        return self.mapped(torch.clone)

    def mapped(self, f: Callable[[torch.Tensor], torch.Tensor]) -> Pass:
        """The same with `f` of each tensor, without pseudo tokens."""
        columns = {name: f(column) for name, column in self.columns.items()}
        return Pass(f(self.queries), f(self.keys), f(self.values), columns, self.scale, self.softcap)


def new_columns(layer: CompressedLayer, keys: torch.Tensor) -> dict[str, torch.Tensor]:
    """Columns of the running pass's entries, `keys` [B, Hkv, T, D]; one is left out for as long as its default describes
    every entry."""
    step, cache = layer.cache.step, layer.cache
    assert step is not None
    b, h, t = keys.shape[:3]
    columns: dict[str, torch.Tensor] = {}
    indexed = step.index is not None
    for part in layer.parts:  # the place in a part that follows another does not tell the token
        indexed = indexed or part.has("index") or part.frozen
    if indexed:
        columns["index"] = step.token_index(b)[:, None].expand(b, h, t)
    if step.valid is not None:
        columns["valid"] = step.valid[:, None].expand(b, h, t)
    if cache.hidden is not None and step.generated and isinstance(cache.method, DescribesEntries):
        with cache.figures.work(step):
            columns.update(cache.method.describe(layer.number, cache.hidden))
    return columns


class NewEntries:
    """Keys and values of this pass on their way from `update()` to the attention function; not a tensor."""

    def __init__(self, layer: CompressedLayer, keys: torch.Tensor, values: torch.Tensor):
        self.layer, self.keys, self.values = layer, keys, values

    def __getattr__(self, name: str) -> Any:
        raise self._misfit(name)

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise cls._misfit(getattr(func, "__name__", str(func)))

    @staticmethod
    def _misfit(name: str) -> UnsupportedModelError:
        return UnsupportedModelError(
            f"this model uses `{name}` of its keys between the cache and the attention function, so its attention does not "
            "fit laconic's seam. Use a model whose attention calls `AttentionInterface` right after `cache.update()`."
        )
