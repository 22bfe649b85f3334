"""What a session saved, measured on the cache and the clock."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from laconic.measure.units import flops, seconds, size


@dataclass
class Stats:
    """Figures of one cache and of all passes since it was new. Bytes and entries are of the whole batch.

    Attributes:
        tokens_in: real prompt tokens per sequence (mean over the batch).
        tokens_out: tokens decoded per sequence (passes over one token).
        entries: stored entries per compressed layer, mean over batch rows and heads.
        layers: decoder layer numbers of `entries`, in the same order.
        asked, achieved: share of the tokens seen that the budget asks for, and share that is stored; of their bytes where
            the budget is that of a quantiser or the like (`Method.in_bytes`). Where no method shortens the cache itself,
            but one shortens the stream: share of the visual tokens, mean over layers.
        kv_bytes: keys and values stored; `kv_bytes_full`: what the same tokens cost uncompressed.
        kv_bytes_allocated: bytes of everything that the cache holds in memory for its compressed layers: entries with their
            spare capacity, bookkeeping per entry, queries that a method keeps, and the like.
        kv_bytes_waiting: most keys and values that a pass held, whole, until the model had returned, where entries of all
            layers compete for one budget; 0 where layers are cut one by one. Chunks of a prompt (``prefill_chunk_size``)
            bound it.
        encoder_seconds: time inside the vision encoder.
        prefill_seconds, decode_seconds: time inside the model, without `generate()`'s own work and what it encodes before
            the call; `compress_seconds` is the methods' share of it.
        prefill_flops, decode_flops: of the model, by formula, for what ran in the compressed layers and in the head (pseudo
            tokens included); `prefill_flops_full`: what the same prompt costs there uncompressed.
        method_flops, method_decode_flops: of the methods' own work beside it, counted as it ran, for prompts and for decoded
            tokens; None unless the session was asked to count it (``count_flops=True``).
        stream: tokens that ran through each decoder layer in prefill.
        visual_in: visual tokens (patches without line ends) of the prompt, per sequence; `visual`: how many of them ran
            through each layer. Known where a method acts on visual tokens.
    """

    tokens_in: float = 0
    tokens_out: int = 0
    entries: list[float] = field(default_factory=list)
    layers: list[int] = field(default_factory=list)
    asked: float = 1.0
    achieved: float = 1.0
    kv_bytes: int = 0
    kv_bytes_full: int = 0
    kv_bytes_allocated: int = 0
    kv_bytes_waiting: int = 0
    encoder_seconds: float = 0.0
    prefill_seconds: float = 0.0
    decode_seconds: float = 0.0
    compress_seconds: float = 0.0
    prefill_flops: int = 0
    prefill_flops_full: int = 0
    decode_flops: int = 0
    method_flops: int | None = 0
    method_decode_flops: int | None = 0
    stream: dict[int, int] = field(default_factory=dict)
    visual_in: float = 0.0
    visual: dict[int, float] = field(default_factory=dict)

    @property
    def prompt_flops(self) -> int | None:
        """What the prompt took in all: the model and the methods' own work; None where that was not counted."""
        return None if self.method_flops is None else self.prefill_flops + self.method_flops

    @property
    def flops_share(self) -> float | None:
        """The same as a share of what the uncompressed model takes for the prompt."""
        return None if self.prompt_flops is None else self.prompt_flops / self.prefill_flops_full

    @property
    def answer_flops(self) -> int | None:
        """What all decoded tokens took in all; None where methods' own work was not counted."""
        return None if self.method_decode_flops is None else self.decode_flops + self.method_decode_flops

    def as_dict(self) -> dict[str, Any]:
        """Plain values with stable keys, for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        """The figures that most people want, a line each; `repr` and `as_dict` have all."""
        lines = {
            "tokens": f"{self.tokens_in:,.0f} in, {self.tokens_out:,} decoded",
            "budget": f"asked {self.asked:.2%}, achieved {self.achieved:.2%}",
            "KV bytes": f"{size(self.kv_bytes)} of {size(self.kv_bytes_full)}",
            "allocated": size(self.kv_bytes_allocated),
            "prefill": f"{seconds(self.prefill_seconds)}, {seconds(self.compress_seconds)} of it the methods' own work",
            "prefill FLOPs": f"{flops(self.prefill_flops)}, uncompressed {flops(self.prefill_flops_full)}",
            "decoding": f"{seconds(self.decode_seconds)}, {flops(self.decode_flops)}",
        }
        if self.visual_in:
            lines["visual tokens"] = f"{self.visual_in:,.0f} in"
        width = max(map(len, lines))
        return "\n".join(f"{name:{width}}  {text}" for name, text in lines.items())
