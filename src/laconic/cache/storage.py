"""The contract of methods that decide in which form entries are stored, not which: quantisers and the like."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from laconic.cache.layer import CompressedLayer
from laconic.cache.seam import StorageSeam
from laconic.method import Method, Reuse
from laconic.seams import Seam


@dataclass(kw_only=True)
class StorageMethod(Method):
    """Store what stays in a smaller form. Goes together with a method that chooses entries once, after prefill.

    A subclass gives `pack`. It is called for every layer after every pass that has stored something, decoded tokens
    included. Together with a choosing method it is called only once the prompt is complete (`CompressedCache.settle`),
    because that method chooses from exact keys.
    """

    claims: ClassVar[frozenset[str]] = frozenset({"cache.storage"})
    seams: ClassVar[tuple[type[Seam], ...]] = (StorageSeam,)
    default_keep: ClassVar[float | None] = None
    reuse: ClassVar[Reuse] = "continue"
    packs: ClassVar[bool] = True
    unpacked_by: ClassVar[str] = "block"
    """The parameter that says how many of the newest tokens are stored as they are, for messages."""

    @property
    def in_bytes(self) -> bool:
        return True

    def pack(self, layer: CompressedLayer) -> None:
        """Move what is ready from the growing part ``layer.parts[-1]`` (dense) into packed parts before it.

        Must be cheap when nothing is ready. The last part must remain one that grows (`DensePart.take_first` takes entries
        from its front)."""
        raise NotImplementedError(f"{type(self).__name__} must define pack().")
