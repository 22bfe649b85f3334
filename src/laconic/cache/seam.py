"""The seams of the cache: which method chooses entries, and which one packs what stays."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from laconic.cache.cache import CompressedCache
from laconic.errors import ConflictError
from laconic.seams import Order, Seam

if TYPE_CHECKING:
    from laconic.cache.contract import CacheMethod
    from laconic.cache.storage import StorageMethod


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
