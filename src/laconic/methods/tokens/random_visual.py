"""Visual tokens drawn uniformly: the floor that every visual method must beat."""

from __future__ import annotations

from dataclasses import dataclass

from laconic.method import register
from laconic.stream.assemble import assemble, choose
from laconic.stream.contract import Cut, Policy, Stream, TokenMethod
from laconic.stream.draws import drawn
from laconic.stream.equal_budget import tokens_after


@register("random_visual", site="tokens", modality="image", mechanism="pruning", source="baseline", query_aware=False)
@dataclass(kw_only=True)
class RandomVisual(TokenMethod):
    """A uniform subset of the visual tokens of a sequence goes on, in its order.

    The draw depends on the seed and on the number of visual tokens only.

    Args:
        layer: the decoder layer in front of which the others are dropped; 0 is the input.
        seed: of the draw.
        positions: "renumber" or "gather"; None: anew at the input, where the model reads a shorter prompt, and as they were
            before an inner layer.
    """

    layer: int = 0
    seed: int = 0
    positions: Policy | None = None

    def cuts(self, depth: int) -> tuple[int, ...]:
        return () if self.layer == depth else (self.layer,)

    def cut(self, stream: Stream) -> Cut | None:
        kept = []
        for b in range(len(stream.hidden)):
            at = stream.images(b)
            draw = drawn(len(at), self.seed).to(stream.hidden.device)
            kept.append(at[choose(draw, tokens_after(self, stream, b), stream.must(b))])
        return assemble(stream, kept, positions=self.positions or ("gather" if self.layer else "renumber"))
