"""The seams of the cache: which method chooses entries, and which one packs what stays."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

from laconic.cache.cache import CompressedCache
from laconic.errors import ConflictError
from laconic.seams import Order, Seam
from laconic.step import Step

if TYPE_CHECKING:
    from laconic.cache.contract import CacheMethod
    from laconic.cache.storage import StorageMethod

LEAST_SAVED = 0.1
"""Share of the bytes of what a choosing method left that a storage method beside it has to save, or there is a warning."""


class EntriesSeam(Seam):
    """Hands the cache of every pass to the method that chooses its entries; the claim `cache.entries` lets in one at
    most."""

    order, single = Order.ENTRIES, True
    methods: tuple[CacheMethod, ...]

    @property
    def budgeted(self) -> Any | None:
        return self.methods[0]

    def check(self) -> None:
        """Refuse a method that undoes RoPE on a model in which laconic cannot."""
        method = self.methods[0]
        if method.undoes_rope and not method.neutral:
            self.host.family.check_undoing(self.host.stack, method.name)

    def adopt(self, cache: CompressedCache) -> None:
        cache.method = self.methods[0]


class StorageSeam(Seam):
    """Hands the cache of every pass to the method that packs entries; the claim `cache.storage` lets in one at most."""

    order, single = Order.STORAGE, True
    methods: tuple[StorageMethod, ...]
    _compared = False

    @property
    def budgeted(self) -> Any | None:
        return self.methods[0]

    def check(self) -> None:
        """Refuse a method beside it that would have to choose from packed entries again, or that leaves no rectangles."""
        storage = self.methods[0]
        chooser: Any | None = next((method for method in self.host.methods if EntriesSeam in method.seams), None)
        if chooser is None or chooser.neutral:
            return
        if chooser.evicts_while_decoding or chooser.ragged:
            ragged = "keeps a different number of entries in every head"
            why = "evicts while decoding" if chooser.evicts_while_decoding else ragged
            raise ConflictError(
                f"{chooser.name} {why}, and {storage.name} packs entries permanently, as rectangles; combine {storage.name} "
                "with a method that chooses once after prefill, the same number in every head."
            )

    def adopt(self, cache: CompressedCache) -> None:
        cache.storage = self.methods[0]

    def finish(self, step: Step, cache: CompressedCache) -> None:
        """Once what another method has left is packed, warn if that saves next to nothing: the newest tokens are stored as
        they are, and after an eviction they may be all that is left."""
        if self._compared or cache.unpacked or not any(EntriesSeam in method.seams for method in self.host.methods):
            return
        chooser, storage = next(m for m in self.host.methods if EntriesSeam in m.seams), self.methods[0]
        lengths = [layer.lengths.float().mean().item() for layer in cache.compressed()]
        left, seen = sum(lengths) / len(lengths), sum(cache.real) / max(1, len(cache.real))
        if storage.neutral or left >= seen:
            return
        self._compared = True
        saved = 1 - cache.nbytes / (left * len(cache.real) * cache.entry_bytes)
        if saved < LEAST_SAVED:
            warnings.warn(
                f"{storage.name} saves {max(0.0, saved):.0%} of the bytes of the {left:.0f} entries per head that "
                f"{chooser.name} left: the newest tokens are stored as they are, and blocks have to fill up. Give it a "
                f"smaller {storage.unpacked_by}, keep more, or use {chooser.name} alone.",
                stacklevel=2,
            )
