"""Visual tokens drawn uniformly: the baseline that every visual method must beat."""

from __future__ import annotations

from dataclasses import dataclass

from laconic import checks
from laconic.method import register
from laconic.stream.assemble import assemble, choose
from laconic.stream.contract import POLICIES, Cut, Policy, Stream, TokenMethod
from laconic.stream.draws import drawn
from laconic.stream.equal_budget import tokens_after


@register("random_visual", site="tokens", modality="image", mechanism="pruning", source="baseline", query_aware=False)
@dataclass(kw_only=True)
class RandomVisual(TokenMethod):
    """Keep a uniformly drawn subset of the visual tokens of a sequence, in order.

    The draw depends only on the seed and the number of visual tokens.

    Args:
        layer: the decoder layer before which the others are dropped; 0 is the input.
        seed: of the draw.
        positions: "renumber" or "gather"; None: renumbered at the input, where the model reads a shorter prompt, and kept
            before an inner layer.
    """

    layer: int = 0
    seed: int = 0
    positions: Policy | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.one_of(self, "positions", *POLICIES, None)

    def cuts(self, depth: int) -> tuple[int, ...]:
        return () if self.layer == depth else (self.layer,)

    def cut(self, stream: Stream) -> Cut | None:
        kept = []
        for b in range(len(stream.hidden)):
            at = stream.images(b)
            draw = drawn(len(at), self.seed).to(stream.hidden.device)
            kept.append(at[choose(draw, tokens_after(self, stream, b), stream.must(b))])
        return assemble(stream, kept, positions=self.positions or ("gather" if self.layer else "renumber"))
