"""What methods that store entries in few bits share: the width, from `bits`, a budget or the model; and when to pack."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from transformers import PretrainedConfig, PreTrainedModel

from laconic.cache.layer import CompressedLayer
from laconic.cache.parts.base import Part
from laconic.cache.parts.quantised import QuantisedPart, numbered
from laconic.cache.parts.rows import RowsPart
from laconic.cache.storage import StorageMethod
from laconic.errors import BudgetError
from laconic.ops.quantise import BITS

EXACT = 16
"""``bits=16`` means: nothing is quantised."""


def check_group(name: str, group: int) -> None:
    """Refuse groups that do not fill whole bytes in every width."""
    if group < 8 or group % 8:
        raise ValueError(f"{name}: group={group}: a group must be a multiple of 8 numbers, such as 32.")


@dataclass(frozen=True)
class HeadSizes:
    """What the width depends on: H query heads, Hkv KV heads of `size` channels, `item` bits per number of the model."""

    queries: int
    kv: int
    size: int
    item: int

    @classmethod
    def of(cls, model: PreTrainedModel) -> HeadSizes:
        config: PretrainedConfig = model.config.get_text_config(decoder=True)
        queries = config.num_attention_heads
        size = getattr(config, "head_dim", None) or config.hidden_size // queries
        return cls(queries, getattr(config, "num_key_value_heads", None) or queries, size, 8 * model.dtype.itemsize)


@dataclass(kw_only=True)
class Quantiser(StorageMethod):
    """Store entries in `bits` bits. Without `bits`, a budget chooses the widest that fits, else `usual_bits`.

    The budget limits what is packed: bytes stored (scales and corrections included) over bytes of the same entries in the
    model's dtype. The recent entries that are not yet packed come on top.

    A subclass defines `usual_bits`, `bits_stored`, `check` and `store`.
    """

    bits: int | None = None

    savings: ClassVar[str] = "group="
    """Parameters that make a smaller share possible, for messages."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.bits is not None and self.bits not in (*BITS, EXACT):
            allowed = ", ".join(map(str, BITS))
            raise ValueError(f"{self.name}: bits={self.bits}: choose {allowed}, or {EXACT} to quantise nothing.")
        if self.bits is not None and not self.budget_from_parameters and not self.budget.neutral:
            raise BudgetError(
                f"{self.name}: bits={self.bits} and {self.budget} both determine how much is stored; give one of them."
            )
        self._heads: HeadSizes | None = None

    @property
    def neutral(self) -> bool:
        return super().neutral or self.bits == EXACT

    # -- what a method defines -------------------------------------------------------------------------------------
    def usual_bits(self, heads: HeadSizes) -> int:
        """The published width for such a model."""
        raise NotImplementedError(f"{type(self).__name__} must define usual_bits().")

    def bits_stored(self, bits: int, heads: HeadSizes) -> float:
        """Bits per number that packed keys and values take on average, everything included; an upper bound."""
        raise NotImplementedError(f"{type(self).__name__} must define bits_stored().")

    def check(self, heads: HeadSizes) -> None:
        """Raise ValueError where the parameters do not fit the heads."""
        raise NotImplementedError(f"{type(self).__name__} must define check().")

    def store(self, parts: list[Part], bits: int, prefill: bool) -> None:
        """Pack what is ready in the last part (dense) of one sequence, or of several of equal length. Cheap if nothing is.

        Args:
            parts: changed in place.
            prefill: these entries came with a prompt, not one by one.
        """
        raise NotImplementedError(f"{type(self).__name__} must define store().")

    # -- shared ----------------------------------------------------------------------------------------------------
    def attach(self, model: PreTrainedModel) -> None:
        self._heads = HeadSizes.of(model)
        if self.neutral:
            return
        self.check(self._heads)
        if self.budget.keep is not None and not self.budget_from_parameters:
            self._widest(self.budget.keep)

    def width(self, layer: CompressedLayer, stored: int) -> int | None:
        """Bits for a sequence of `stored` entries in this layer; None when its budget holds all of them as they are."""
        assert self._heads is not None
        if self.bits is not None:
            return self.bits
        if self.budget_from_parameters:
            return self.usual_bits(self._heads)
        if self.budget.keep is not None:
            return self._widest(self.budget.keep)
        share = self.budget.entries(stored, layer.cache.entry_bytes) / stored
        return None if share == 1 else self._widest(share)

    def _widest(self, share: float) -> int:
        assert self._heads is not None
        shares = {bits: self.bits_stored(bits, self._heads) / self._heads.item for bits in sorted(BITS, reverse=True)}
        for bits, needed in shares.items():
            if needed <= share + 1e-9:
                return bits
        least = min(shares.values())
        raise BudgetError(
            f"{self.name}: {self.budget} allows {share:.4g} of the bytes, but {min(BITS)} bits with their scales need "
            f"{least:.4g} of a {self._heads.item}-bit cache, the smallest share possible. "
            f"Give more, or change {self.savings}."
        )

    def pack(self, layer: CompressedLayer) -> None:
        step = layer.cache.step
        prefill = step is None or step.prefill or layer.seen == step.start  # or the prompt, packed before this step
        shared = [part for part in layer.parts if part.frozen]
        own = layer.parts[len(shared) :]
        for parts in self._sequences(layer, own):
            known = next((part.bits for part in [*shared, *parts[:1]] if isinstance(part, QuantisedPart)), None)
            bits = self.width(layer, sum(part.length for part in [*shared, *parts])) if known is None else known
            if bits is None:
                continue
            before = len(parts), parts[0].length
            self.store(parts, bits, prefill)
            if (len(parts), parts[0].length) != before:
                layer.evicted = True  # the latest tokens may be packed: no rolling back
        layer.parts = [*shared, *own]

    @staticmethod
    def _sequences(layer: CompressedLayer, own: list[Part]) -> list[list[Part]]:
        """Parts that are packed together: `own`, which no fork shares, or each sequence's where lengths differ."""
        last = own[-1]
        if last.has("valid") and not isinstance(last, RowsPart):
            numbered(layer.parts)
            rows = RowsPart.split(own, last.lengths.shape[0])
            own[:] = [rows] if len(rows.rows) > 1 else rows.rows[0]
            layer.evicted = True
            last = own[-1]
        return last.rows if isinstance(last, RowsPart) else [own]
