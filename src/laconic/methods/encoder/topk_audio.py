"""Top-K: audio tokens that are little attended to are dropped at a few encoder layers (arXiv 2504.01690)."""

from __future__ import annotations

from dataclasses import dataclass

from laconic.method import register
from laconic.ops.select import best
from laconic.speech.contract import AudioMethod, LayerView, Shorter


@register(
    "topk_audio",
    site="encoder",
    modality="audio",
    mechanism="pruning",
    principle="attention",
    source="arXiv 2504.01690",
    query_aware=False,
    inferred="attention received from all tokens of sound, where the encoder has no CLS token; layers scaled to its depth",
)
@dataclass(kw_only=True)
class TopKAudio(AudioMethod):
    """Keep the tokens that receive the most attention, between attention and feed-forward network of a few encoder layers.

    The score is the mean over heads of the attention that a token receives from all tokens of the same sound: Whisper's
    encoder has no CLS token, whose attention the publication takes. Every layer of `layers` keeps the same share. Positions
    were added at the input, so the order of what is left means nothing.

    Args:
        layers: encoder layers that drop tokens; None: those after a quarter, a half and three quarters of the depth.
        silence, strip, proportional: see `AudioMethod`.
    """

    layers: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.layers is not None:
            self.layers = (self.layers,) if isinstance(self.layers, int) else tuple(self.layers)
            if not self.layers or min(self.layers) < 0 or len(set(self.layers)) < len(self.layers):
                raise ValueError(f"topk_audio: layers={self.layers} must be different layers, counted from 0.")

    @property
    def inside(self) -> bool:
        return True

    def plan(self, tokens: int, count: int | None, depth: int) -> list[int | None]:
        assert count is not None
        chosen = self.layers or tuple(sorted({depth * quarter // 4 for quarter in (1, 2, 3)}))
        if max(chosen) >= depth:
            raise ValueError(f"topk_audio: layers={chosen}: this encoder has layers 0..{depth - 1}.")
        left, plan = tokens, []
        for layer in range(depth):
            if layer in chosen:
                remaining = sum(one >= layer for one in chosen)
                left = max(count, round(left * (count / left) ** (1 / remaining)))
            plan.append(left)
        return list(plan)

    def step(self, view: LayerView) -> Shorter:
        assert view.count is not None
        if view.count == view.keys.shape[1]:
            return Shorter.keeping(view.keys.new_ones(view.count).bool())
        attention = (view.queries.float() @ view.keys.float().mT * view.scale).softmax(-1)
        return Shorter.keeping(best(attention.mean((0, 1))[None], view.count)[0])
