"""What one session has shortened and spared: encoder tokens, bytes of the cross-attention's cache, FLOPs."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor
from transformers import PreTrainedModel

from laconic.families.audio.whisper import core_of
from laconic.measure.figures import Figures
from laconic.measure.work import Work
from laconic.method import Method
from laconic.stream.contract import TokenMethod


@dataclass(frozen=True)
class Window:
    """One window that was encoded.

    Attributes:
        tokens: of the encoder for the whole window. `sound`: those that are sound.
        kept: tokens that the sound became; `silence`: tokens of padding that stayed after it.
        to: the kept token that each token of sound is part of, [sound]; -1 where it was dropped.
    """

    tokens: int
    sound: int
    kept: int
    silence: int
    to: Tensor


@dataclass
class SpeechStats:
    """Figures of all windows so far. Bytes and FLOPs follow the conventions of `laconic.measure.cost`.

    Attributes:
        windows: encoded. `encoder_tokens`, `sound_tokens`: in them.
        kept_tokens: what the decoder's cross-attention looks at: sound that is left, and silence after it.
        achieved: sound tokens that are left, as a share; `asked`: the share of the budget, None without one.
        cross_bytes: of the keys and values of the cross-attention; `cross_bytes_full`: of the uncompressed model.
        encoder_flops: of the encoder's layers and the cross-attention's keys and values; `encoder_flops_full` likewise.
        method_flops: of the method's own work. `method_seconds`: its time.
    """

    windows: int = 0
    encoder_tokens: int = 0
    sound_tokens: int = 0
    kept_tokens: int = 0
    achieved: float = 1.0
    asked: float | None = None
    cross_bytes: int = 0
    cross_bytes_full: int = 0
    encoder_flops: int = 0
    encoder_flops_full: int = 0
    method_flops: int = 0
    method_seconds: float = 0.0


@dataclass
class SpeechFigures:
    """Counters of a session, and the sizes of its model."""

    model: PreTrainedModel
    windows: list[Window] = field(default_factory=list)
    own: Figures = field(default_factory=Figures)
    layers_flops: int = 0

    @property
    def config(self) -> Any:
        return self.model.config

    @property
    def entry_bytes(self) -> int:
        """Bytes of the keys and values of one encoder token in all decoder layers."""
        return 2 * self.config.decoder_layers * self.config.d_model * self.model.dtype.itemsize

    def count(self, method: TokenMethod, tokens: int) -> int | None:
        """How many of a window's tokens of sound the budget leaves; None where the method's parameters decide."""
        return None if method.budget_from_parameters else int(method.allowance(tokens, 0, self.entry_bytes) + 0.5)

    def work(self) -> AbstractContextManager[None]:
        """While it is open, the method does work of its own."""
        return Work(self.own, prefill=True)

    def encoded(self, tokens: list[tuple[int, int]], batch: int) -> None:
        """The encoder's layers ran, each on so many tokens per window in its attention and its feed-forward network."""
        self.layers_flops += batch * sum(self._layer(*each) for each in tokens)

    def _layer(self, attended: int, worked: int) -> int:
        width, inner = self.config.d_model, self.config.encoder_ffn_dim
        return 8 * attended * width**2 + 4 * attended**2 * width + 4 * worked * width * inner

    def _cross(self, tokens: int) -> int:
        return 4 * tokens * self.config.decoder_layers * self.config.d_model**2

    def stats(self, method: Method | None) -> SpeechStats:
        """Everything so far."""
        whole = core_of(self.model).encoder.embed_positions.num_embeddings
        kept = sum(window.kept + window.silence for window in self.windows)
        sound = sum(window.sound for window in self.windows)
        windows, layers = len(self.windows), self.config.encoder_layers
        return SpeechStats(
            windows=windows,
            encoder_tokens=windows * whole,
            sound_tokens=sound,
            kept_tokens=kept,
            achieved=sum(window.kept for window in self.windows) / sound if sound else 1.0,
            asked=None if method is None else method.budget.keep,
            cross_bytes=kept * self.entry_bytes,
            cross_bytes_full=windows * whole * self.entry_bytes,
            encoder_flops=self.layers_flops + self._cross(kept),
            encoder_flops_full=windows * (layers * self._layer(whole, whole) + self._cross(whole)),
            method_flops=self.own.method_flops,
            method_seconds=self.own.compress_seconds,
        )
