"""The contract of methods that shorten sound: one sound's tokens in, fewer out, in a prompt or before cross-attention."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor
from transformers import PreTrainedModel

from laconic import checks
from laconic.errors import UnsupportedModelError
from laconic.families.audio import AudioFamily, energy
from laconic.families.vision import VisualSpan, vision_family_of
from laconic.speech.clip import Clip, LayerView, Shorter
from laconic.stream.contract import Cut, Stream, TokenMethod
from laconic.stream.views import Reduced, by_view, counts

SPECIAL = ("pad_token_id", "bos_token_id", "eos_token_id")
"""Tokens that a configuration names and that are no words."""

__all__ = ["AudioMethod", "Clip", "LayerView", "Reduced", "Shorter"]


@dataclass(kw_only=True)
class AudioMethod(TokenMethod):
    """Shortens the tokens of every sound, its padding left out.

    In models that take sound in their prompt (Qwen2-Audio) it cuts before layer 0, and `keep` is the share of the audio
    tokens. In Whisper it cuts between the encoder and the cross-attention (`laconic.compress_encoder`), and `keep` is the
    share of the encoder tokens that are sound; `tokens` is their number, `bytes` what their keys and values may take.

    A subclass gives `reduce`, or where it acts `inside` the pair `plan` and `step`, which act within the encoder's layers.

    Args:
        silence: seconds of a window's padding, spread evenly over it, that stay after the sound, on top of the budget, where
            a model's windows have a fixed length (Whisper). Without any, its decoder does not learn that the speech is over.
        strip: where the rest of the padding leaves: "output" of the encoder, so that the encoder works as it was trained,
            or its "input", which saves most of its work.
        proportional: a token that stands for s others is attended like s of them (log s is added to its logits), padding
            included: a second of it that is attended like a second lets decoders repeat themselves.
    """

    silence: float = 1.0
    strip: Literal["output", "input"] = "output"
    proportional: bool = True

    asks: ClassVar[bool] = False
    """Whether it needs the question of a prompt, and so a model that has one."""

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.at_least(self, "silence", 0)
        checks.one_of(self, "strip", "output", "input")

    @property
    def inside(self) -> bool:
        """Whether it acts within the encoder's layers."""
        return False

    def attach(self, model: PreTrainedModel) -> None:
        """Called by `laconic.compress`, for models that take sound in their prompt.

        Raises:
            UnsupportedModelError: it takes none, or the method is not for such models.
        """
        family = vision_family_of(model)
        if not isinstance(family, AudioFamily):
            raise UnsupportedModelError(f"{self.name} shortens sound, and a {family.name} model takes none in its prompt.")
        if self.inside:
            raise UnsupportedModelError(
                f"{self.name} acts within the encoder, and a {family.name} model joins its tokens in fixed groups after it, "
                "so no token would be one merged token; use a method that acts after the encoder."
            )

    # -- in a prompt -----------------------------------------------------------------------------------------------
    def cut(self, stream: Stream) -> Cut:
        shares = {} if self.budget_from_parameters else counts(stream, self)
        return by_view(stream, lambda number, span, must: self.reduce(clip_of(stream, span, must, shares.get(number))))

    def reduce(self, clip: Clip) -> Reduced:
        """What becomes of one sound's tokens."""
        raise NotImplementedError(f"{type(self).__name__} must define reduce().")

    # -- within an encoder -----------------------------------------------------------------------------------------
    def plan(self, tokens: int, count: int | None, depth: int) -> list[int | None]:
        """Tokens that go on from each of `depth` encoder layers, of a sound of `tokens` that may keep `count`; None where
        the method's own parameters decide."""
        raise NotImplementedError(f"{type(self).__name__} must define plan().")

    def step(self, view: LayerView) -> Shorter:
        """What becomes of one sound's tokens inside one layer."""
        raise NotImplementedError(f"{type(self).__name__} must define step().")


def clip_of(stream: Stream, span: VisualSpan, must: Tensor, count: int | None) -> Clip:
    """A sound in a prompt."""
    visual = stream.visual
    assert isinstance(visual.family, AudioFamily)
    return Clip(
        tokens=visual.features(span),
        seconds=visual.family.seconds(visual.model),
        energy=energy(visual, span),
        count=count,
        must=must,
        question=question_of(stream, span.row),
        block=stream.block,
    )


def question_of(stream: Stream, row: int) -> Tensor:
    """Embeddings of the words after the last sound of a batch row, or before the first where none follow, [L, D]: no token
    that the configuration names (beginnings, ends, padding)."""
    words, config = stream.texts(row), stream.visual.model.config
    ends = (getattr(one, name, None) for one in (config, config.get_text_config()) for name in SPECIAL)
    special = [number for one in ends for number in (one if isinstance(one, list) else [one]) if number is not None]
    ids = stream.ids[row, stream.place[row, words]]
    words = words[~torch.isin(ids, torch.tensor(special).to(ids))]
    last = int(stream.images(row).max())
    after = words[words > last]
    return stream.hidden[row, after if len(after) else words]
