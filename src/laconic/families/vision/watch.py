"""Observes, with hooks alone, how a model reads images: what the encoder got and returned, and which tokens that became."""

from __future__ import annotations

import inspect
import itertools
import threading
from collections.abc import Sequence
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedModel

from laconic.errors import SessionError
from laconic.families.base import GENERIC
from laconic.families.vision.base import EncoderCall, vision_family_of
from laconic.families.vision.encoder import EncoderAttention, catch, layer_number
from laconic.families.vision.spans import VisualSpan, place
from laconic.families.vision.visual import Visual

PIXELS = {"image": "pixel_values", "video": "pixel_values_videos", "audio": "input_features"}
"""What a model is given of each modality, in the order in which models encode them."""


class _OfThread(threading.local):
    """What a thread's pass has shown so far: images are encoded in the thread that calls the model, and maybe before it."""

    visual: Visual | None = None

    def __init__(self) -> None:
        self.calls: list[EncoderCall] = []
        self.kwargs: dict[str, Any] = {}


class VisionWatch:
    """While open, `visual` describes the visual tokens of the pass that is running, from the moment the decoder starts.

    `generate()` encodes images before it calls the model, and then no longer passes sizes or grids on; a plain call
    encodes inside the model. Both end at the decoder's pre-hook, where everything is known. A session opens it before its
    own hooks, so that `visual` describes the pass when the session's pre-hook on the decoder runs.

    Args:
        model: the whole model. `layers`: encoder layers whose attention methods look at.
    """

    def __init__(self, model: PreTrainedModel, layers: Sequence[int] = ()):
        self.model, self.family = model, vision_family_of(model)
        self.tower = self.family.tower(model)
        self.layers = sorted({layer_number(self.tower, layer) for layer in layers})
        self._here = _OfThread()
        self._arguments = list(inspect.signature(model.forward).parameters)
        self._features = list(inspect.signature(self.tower.forward).parameters)
        self._handles: list[RemovableHandle] = []

    def __enter__(self) -> VisionWatch:
        stack, projector = GENERIC.stack(self.model), self.family.projector(self.model)
        self._handles = [
            self.tower.register_forward_pre_hook(self._encoder_in, with_kwargs=True),
            self.tower.register_forward_hook(self._encoder_out),
            self.model.register_forward_pre_hook(self._model_in, with_kwargs=True),
            self.model.register_forward_hook(self._model_out, always_call=True),
            stack.register_forward_pre_hook(self._decoder_in, with_kwargs=True),
        ]
        if projector is not None:
            self._handles.append(projector.register_forward_hook(self._projected))
        for layer in self.layers:
            self._handles += catch(self.tower, layer, lambda heads, layer=layer: self._attended(layer, heads))  # type: ignore[misc]
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles, self._here = [], _OfThread()

    @property
    def visual(self) -> Visual | None:
        """The visual tokens of this thread's pass; None while it has no images (decoding, text)."""
        return self._here.visual

    def forget(self) -> None:
        """Let go of this thread's images and of all that the encoder returned for them."""
        self._here.visual = None

    def _encoder_in(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._here.calls.append(EncoderCall(kwargs | dict(zip(self._features, args, strict=False))))

    def _attended(self, layer: int, heads: EncoderAttention) -> None:
        self._here.calls[-1].heads[layer] = heads

    def _encoder_out(self, module: nn.Module, args: Any, output: Any) -> None:
        self._here.calls[-1].output = output

    def _projected(self, module: nn.Module, args: Any, output: Tensor) -> None:
        calls = self._here.calls
        if calls and calls[-1].before is None:  # methods may call the projector again later
            calls[-1].before, calls[-1].after = args[0], output

    def _model_in(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._here.visual = None
        self._here.kwargs = kwargs | dict(zip(self._arguments, args, strict=False))

    def _model_out(self, module: nn.Module, args: Any, output: Any) -> None:
        self._here.calls, self._here.kwargs = [], {}

    def _decoder_in(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        call = self._here.kwargs
        given = call.get("mm_encoder_outputs") or {}
        modalities = [m for m, pixels in PIXELS.items() if given.get(m) is not None or call.get(pixels) is not None]
        ids = call.get("input_ids")
        if not modalities:
            self._refuse_placeholders(ids)
            return
        calls = dict(zip(reversed(modalities), reversed(self._here.calls), strict=False))
        missing = [m for m in modalities if m not in calls or given.get(m, calls[m].output) is not calls[m].output]
        if missing:
            raise SessionError(
                f"the {missing[0]} features were computed before laconic watched the model; pass {PIXELS[missing[0]]} "
                "instead of mm_encoder_outputs, and no prefill_chunk_size."
            )
        self._here.visual = self._describe(ids, calls, kwargs)

    def _refuse_placeholders(self, ids: Tensor | None) -> None:
        """A prompt with placeholders but no images: transformers 5.19 encodes images and loses them in chunked prefill."""
        if ids is None or ids.shape[1] == 1:
            return
        tokens = [getattr(self.model.config, f"{modality}_token_id", None) for modality in PIXELS]
        if any(bool((ids == token).any()) for token in tokens if token is not None):
            raise SessionError(
                "these tokens contain image placeholders, but no images came with them; pass the pixels, and no "
                "prefill_chunk_size: transformers drops images from prompts that it feeds in chunks."
            )

    def _describe(self, ids: Tensor | None, calls: dict[str, EncoderCall], decoder: dict[str, Any]) -> Visual:
        if ids is None:
            raise SessionError("visual tokens are found by their ids; pass input_ids, not inputs_embeds.")
        spans: list[VisualSpan] = []
        grids: dict[tuple[str, int], tuple[int, int] | None] = {}
        placeholders: dict[str, Tensor] = {}
        separators = torch.zeros_like(ids, dtype=torch.bool)
        for modality, call in calls.items():
            mask = placeholders[modality] = torch.eq(ids, self.family.token_id(self.model, modality))
            items = self.family.items(self.model, modality, call, runs_of(mask))
            found, bare = place(items, modality, mask)
            spans += found
            separators |= bare
            grids |= {(modality, number): item.crop_grid for number, item in enumerate(items)}
        spans.sort(key=lambda span: (span.row, span.start))
        every = torch.stack(list(placeholders.values())).any(0)
        positions = positions_of(decoder.get("position_ids"), ids)
        return Visual(self.family, self.model, spans, every, separators, positions, calls, placeholders, grids)


def runs_of(mask: Tensor) -> list[list[int]]:
    """Lengths of the unbroken runs of True in every row of [B, T]."""
    return [[len(list(group)) for value, group in itertools.groupby(row) if value] for row in mask.tolist()]


def positions_of(position_ids: Tensor | None, ids: Tensor) -> Tensor:
    """Rotary positions [1 or 3, B or 1, T] from what the decoder is given; M-RoPE models put text positions first."""
    if position_ids is None:
        return torch.arange(ids.shape[1], device=ids.device)[None, None]
    if position_ids.ndim == 2:
        return position_ids[None]
    return position_ids[-3:]
