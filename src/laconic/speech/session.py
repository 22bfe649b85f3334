"""`compress_encoder(model, method)`: while it is open, a speech model's decoder looks at fewer encoder tokens."""

from __future__ import annotations

import threading
from contextlib import ExitStack
from types import TracebackType
from typing import Any
from weakref import WeakSet

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from laconic.errors import ConflictError, SessionError, UnsupportedModelError
from laconic.families.audio.whisper import core_of
from laconic.families.wrappers import unwrapped
from laconic.method import Method
from laconic.specs import methods_of
from laconic.speech.contract import AudioMethod
from laconic.speech.encoder import ShorterEncoder
from laconic.speech.figures import SpeechFigures, SpeechStats, Window

MASKS = ("eager", "sdpa")
"""Attention kernels that take what is added to their logits."""
_OPEN: WeakSet[nn.Module] = WeakSet()
"""Models that are in a session."""


def compress_encoder(model: nn.Module, *methods: Method | str) -> EncoderSession:
    """Shorten what the cross-attention of an encoder-decoder speech model looks at, while the returned session is open.

    Args:
        model: a Whisper model, plain or wrapped. Its own `generate()` and plain calls are shortened, batches, beams and
            sounds of many windows included.
        methods: one method for sound, such as ``"NAME:keep=0.5"``; none counts only.

    Raises:
        UnsupportedModelError: the model is no Whisper model, or its attention takes no mask.
        ConflictError: several methods, or one that does not shorten sound.

    Example:
        >>> with laconic.compress_encoder(model, "NAME:keep=0.5") as session:
        ...     model.generate(features)
        >>> session.stats.cross_bytes
    """
    return EncoderSession(unwrapped(model), methods_of(methods))


class _OfThread(threading.local):
    """What the latest call of the encoder in this thread gave to the decoder, and its mask [B, m]."""

    hidden: Tensor | None = None
    mask: Tensor | None = None


class EncoderSession:
    """One activation of a method on one speech model. See `compress_encoder`.

    Attributes:
        windows: what became of each window that was encoded.
    """

    def __init__(self, model: PreTrainedModel, methods: tuple[Method, ...]):
        self.model, self.core = model, core_of(model)
        self.method = _one(methods)
        self.figures = SpeechFigures(model)
        kernel = model.config._attn_implementation
        if self.method is not None and kernel not in MASKS:
            raise UnsupportedModelError(
                f"windows of different lengths and sizes of merged tokens are added to attention's logits, and {kernel!r} "
                f"takes no such mask; load the model with attn_implementation= one of {', '.join(MASKS)}."
            )
        self._here = _OfThread()
        self._restore = ExitStack()

    def __enter__(self) -> EncoderSession:
        if self.model in _OPEN:
            raise SessionError("the encoder of this model is in a laconic session already; close that one first.")
        try:
            _OPEN.add(self.model)
            self._restore.callback(_OPEN.discard, self.model)
            active = self.method is not None and not self.method.neutral
            for handle in self._hooks() if active else [self.core.encoder.register_forward_hook(self._whole)]:
                self._restore.callback(handle.remove)
        except BaseException:
            self._restore.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._restore.close()
        self._here = _OfThread()

    @property
    def windows(self) -> list[Window]:
        return self.figures.windows

    @property
    def stats(self) -> SpeechStats:
        """Figures of all windows since the session was made."""
        return self.figures.stats(self.method)

    def _hooks(self) -> list[Any]:
        assert self.method is not None
        handles = ShorterEncoder(self.model, self.method, self.figures, self._encoded).install()
        handles.append(self.core.decoder.register_forward_pre_hook(self._check, with_kwargs=True))
        for layer in self.core.decoder.layers:
            handles.append(layer.encoder_attn.register_forward_pre_hook(self._attend, with_kwargs=True))
        return handles

    def _encoded(self, hidden: Tensor, mask: Tensor | None) -> None:
        self._here.hidden, self._here.mask = hidden, mask

    def _check(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Encoder tokens that did not come from this session's encoder were not shortened."""
        seen = kwargs.get("encoder_hidden_states")
        ours = self._here.hidden
        if isinstance(seen, Tensor) and (ours is None or seen.shape[1] != ours.shape[1] or len(seen) % len(ours)):
            raise SessionError(
                "the encoder ran before this session was opened, or another sound was encoded since; pass input_features "
                "instead of encoder_outputs."
            )

    def _attend(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        mask = self._here.mask
        if mask is None:
            return None
        queries = args[0] if args else kwargs["hidden_states"]
        repeated = mask.repeat_interleave(len(queries) // len(mask), 0)  # beams of one window are neighbours
        return args, kwargs | {"attention_mask": repeated[:, None, None].to(queries.dtype)}

    def _whole(self, module: nn.Module, args: Any, output: Any) -> None:
        """Nothing is shortened: count."""
        batch, tokens, _ = output.last_hidden_state.shape
        every = torch.arange(tokens)
        self.figures.windows += [Window(tokens, tokens, tokens, 0, every)] * batch
        self.figures.encoded([(tokens, tokens)] * self.model.config.encoder_layers, batch)


def _one(methods: tuple[Method, ...]) -> AudioMethod | None:
    if len(methods) > 1:
        names = " and ".join(method.name for method in methods)
        raise ConflictError(f"{names} would both shorten the encoder's tokens; use one of them per session.")
    if not methods:
        return None
    (method,) = methods
    if not isinstance(method, AudioMethod):
        raise ConflictError(
            f"{method.name} does not shorten sound; `laconic methods --modality audio` lists the methods that do."
        )
    if method.asks:
        raise UnsupportedModelError(
            f"{method.name} chooses by the question, and a model that only writes down what it hears gets none; use a "
            "method that needs none."
        )
    return method
