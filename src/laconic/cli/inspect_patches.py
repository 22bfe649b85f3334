"""What the page of images is built from, read from a running session: the views as the encoder saw them, and the trace of
cuts turned into the fate of every visual token."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedModel

from laconic.cli.inspect_time import Edges, frame_time, sound_views
from laconic.errors import SessionError
from laconic.families.vision import VisionWatch, Visual, VisualSpan, vision_family_of
from laconic.report.image_page import ImageCut, Level, Numbers, View
from laconic.session import Session

RGB = 3


class Eyes:
    """While open, notes what the vision encoder is fed and where the tokens go, on any supported model.

    Args:
        processor: the image processor, which knows how pixels were normalised.

    Attributes:
        visual: of the latest pass with images.
    """

    def __init__(self, model: PreTrainedModel, processor: Any = None):
        self.model, self.processor = model, processor
        self.visual: Visual | None = None
        self._pixels: list[Tensor] = []
        self._watch = VisionWatch(model)
        self._handles: list[RemovableHandle] = []

    def __enter__(self) -> Eyes:
        tower = vision_family_of(self.model).tower(self.model)
        self._watch.__enter__()
        self._handles = [
            tower.register_forward_pre_hook(self._encoded, with_kwargs=True),
            self.model.register_forward_hook(self._read),
        ]
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for handle in self._handles:
            handle.remove()
        self._watch.__exit__(kind, error, trace)

    def _encoded(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        given = [x for x in (*args, *kwargs.values()) if isinstance(x, Tensor) and x.is_floating_point()]
        self._pixels = [*self._pixels, given[0].detach().float().cpu()][-2:]  # images and videos of one pass, or sounds

    def _read(self, module: nn.Module, args: Any, output: Any) -> None:
        if self._watch.visual is not None:
            self.visual = self._watch.visual

    def views(self, names: Sequence[str] = (), edges: Sequence[Edges] = ()) -> tuple[list[View], Numbers]:
        """All views of the first batch row, and the place in the prompt of every token that shows a patch or stands for a
        stretch of sound.

        Args:
            names: of the images or sounds, in the order of the prompt.
            edges: when they are to be seen.

        Raises:
            SessionError: the model was given neither image nor sound.
        """
        if self.visual is None:
            raise SessionError("the model has not read any image yet.")
        calls = list(self.visual.calls)
        given = dict(zip(calls, self._pixels[-len(calls) :], strict=True))
        family = vision_family_of(self.model)
        if not family.audio:
            config = family.tower(self.model).config
            side = config.patch_size[0] if isinstance(config.patch_size, (list, tuple)) else config.patch_size
            given = {modality: patches(x, side) for modality, x in given.items()}
        return views(self.visual, given, self.processor, names, edges)


def patches(pixels: Tensor, side: int) -> Tensor:
    """Encoder input as patches [P, 3, side, side]: images [V, 3, H, W] line by line, or what is already packed as patches,
    [P, 3 * frames * side * side], of which the first frame is shown."""
    if pixels.ndim == 2:
        return pixels.view(len(pixels), RGB, -1, side, side)[:, :, 0]
    rows, cols = pixels.shape[-2] // side, pixels.shape[-1] // side
    cut = pixels.reshape(-1, RGB, *pixels.shape[-2:])[..., : rows * side, : cols * side]
    return cut.reshape(-1, RGB, rows, side, cols, side).permute(0, 2, 4, 1, 3, 5).reshape(-1, RGB, side, side)


def colours(x: Tensor, processor: Any) -> NDArray[np.uint8]:
    """Encoder input [..., 3, h, w] as RGB [..., h, w, 3], by undoing the processor's mean and deviation; without
    those, stretched from the darkest to the brightest value."""
    mean, deviation = (getattr(processor, name, None) for name in ("image_mean", "image_std"))
    if mean is None or deviation is None or not getattr(processor, "do_normalize", True):
        mean, deviation = [float(x.min())] * RGB, [float(x.max() - x.min()) or 1.0] * RGB
        x = (x - torch.tensor(mean).view(RGB, 1, 1)) / torch.tensor(deviation).view(RGB, 1, 1)
    else:
        x = x * torch.tensor(deviation).view(RGB, 1, 1) + torch.tensor(mean).view(RGB, 1, 1)
    return (x.clamp(0, 1) * 255).round().to(torch.uint8).movedim(-3, -1).numpy()


def views(
    visual: Visual, pixels: dict[str, Tensor], processor: Any, names: Sequence[str] = (), edges: Sequence[Edges] = ()
) -> tuple[list[View], Numbers]:
    """See `Eyes.views`; `pixels` are patches by modality, or the spectrograms of sounds."""
    spans = [s for s in visual.spans if s.row == 0]
    numbers = np.sort(np.concatenate([s.tokens.cpu().numpy() for s in spans]))
    items = list(dict.fromkeys((s.modality, s.image) for s in spans))
    names = names or ([""] if len(items) == 1 else [f"{kind} {i + 1}" for i, (kind, _) in enumerate(items)])
    found: list[View] = []
    for place, (modality, image) in enumerate(items):
        grid, spans = visual.crop_grids[modality, image], visual.of(0, image, modality)
        times = edges[place] if place < len(edges) else ()
        for span in spans:
            if modality == "audio":
                found += sound_views(visual, span, pixels[modality][image], place, names[place], numbers)
                continue
            shown = colours(pixels[modality][span.patches.cpu()], processor)
            gh, gw, side = shown.shape[:3]
            drawn = shown.transpose(0, 2, 1, 3, 4).reshape(gh * side, gw * side, RGB)
            at = span.cells.cpu().numpy()
            cells = np.where(at >= 0, np.searchsorted(numbers, at), -1)
            spot = divmod(span.crop - 1, grid[1]) if grid is not None and span.crop > 0 else None
            time = frame_time(times, span.frame if modality == "video" else 0, len(spans))
            found.append(View(place, _name(span, names[place]), drawn, cells, spot, time))
    return found, numbers


def _name(span: VisualSpan, item: str) -> str:
    if span.modality == "video":
        view = f"frame {span.frame + 1}"
    elif span.crop == 0:
        view = "" if item else "whole image"
    else:
        view = f"crop {span.crop}" if span.crop > 0 else "crops, put together"
    return ", ".join(filter(None, (item, view)))


def level(session: Session, numbers: Numbers, label: str) -> Level:
    """What a session did to the visual tokens `numbers` of its first batch row, read when the prompt is in the cache and
    nothing has been decoded. The caller adds the answer."""
    cache = session.cache
    assert cache is not None
    layers = list(cache.layer_ids)
    share = np.zeros((len(layers), len(numbers)), np.float32)
    for i, (layer, state) in enumerate(zip(layers, cache.compressed(), strict=True)):
        heads = state.lengths.shape[1]
        for head in range(heads):
            share[i] += np.isin(numbers, session.kept(layer, head).cpu().numpy())
        share[i] /= heads
    into, cuts = fates(session, numbers, layers)
    stats = session.stats
    return Level(label, stats.asked, stats.achieved, layers, share, into, cuts)


def fates(session: Session, numbers: Numbers, layers: Sequence[int]) -> tuple[Numbers, list[ImageCut]]:
    """Which visual token holds each one in each of `layers` [layers, n] (-1: none), and the cuts of the stream."""
    total = int(session.cache.seen) if session.cache is not None else 0
    stream = np.arange(total)  # the prompt's token in every row of the stream, -1 in rows that hold none
    holder = np.arange(total)
    history: list[tuple[int, Numbers]] = []
    cuts: list[ImageCut] = []
    for event in session.trace.events:
        if event.stream is None:
            continue
        after = event.stream[0].cpu().numpy()
        goes = np.full(total, -1)
        if event.merged is not None:
            rows = event.merged[0].cpu().numpy()
            real = stream >= 0
            goes[stream[real]] = np.where(rows[real] < 0, -1, stream[rows[real]])
        stays = after[after >= 0]
        goes[~np.isin(goes, stays)] = -1
        goes[stays] = stays
        scores = None
        if event.scores is not None:
            scores = np.full(total, np.nan, np.float32)
            scores[stream[stream >= 0]] = event.scores[0].float().cpu().numpy()[stream >= 0]
            scores = scores[numbers]
        moved = (goes >= 0) & (goes != np.arange(total))
        before = int(np.isin(numbers, stream).sum())
        left = int(np.isin(numbers, stays).sum())
        cuts.append(ImageCut(event.layer + 1, event.method, before, left, int(moved[numbers].sum()), scores))
        holder = np.where(holder < 0, -1, goes[holder])
        stream = after
        history.append((event.layer + 1, holder))
    into = np.empty((len(layers), len(numbers)), np.int64)
    for i, layer in enumerate(layers):
        held = next((h for first, h in reversed(history) if first <= layer), np.arange(total))[numbers]
        into[i] = np.where(np.isin(held, numbers), np.searchsorted(numbers, held).clip(max=len(numbers) - 1), -1)
    return into, cuts
