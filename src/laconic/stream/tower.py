"""A vision encoder that merges or drops tokens along the way, by hooks; the projector still gets features of full length."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedModel

from laconic.errors import UnsupportedModelError
from laconic.families.vision import vision_family_of
from laconic.families.vision.encoder import EncoderAttention, catch, layers_of, tower_of
from laconic.measure.figures import early_work
from laconic.ops.bipartite import Merging

MASKS = ("eager", "sdpa")


def check(model: PreTrainedModel, name: str, proportional: bool) -> None:
    """Refuse models whose tokens cannot be merged within the encoder.

    Raises:
        UnsupportedModelError: the model is one of these.
    """
    family = vision_family_of(model)
    tower = family.tower(model)
    if family.merges or tower_of(tower).fused or family.projector(model) is None:
        raise UnsupportedModelError(
            f"{name}: a {family.name} model makes one token of every fixed block of patches after its encoder, and patches "
            "that were merged elsewhere fit no block; use a method that acts after the merger."
        )
    missing = [part for part in ("self_attn", "layer_norm2", "mlp") if not hasattr(layers_of(tower)[0], part)]
    if missing:
        raise UnsupportedModelError(
            f"{name}: layers of {type(tower).__name__} have no {' and no '.join(missing)}, between which tokens "
            "are merged; encoders of the CLIP and SigLIP kind do."
        )
    if family.omits_patch(model):
        raise UnsupportedModelError(
            f"{name}: this model leaves the first patch of every view out (vision_feature_select_strategy='default' with an "
            "encoder that has no CLS token), and merged with others it cannot be left out; use a method that acts after "
            "the encoder, or load the model with vision_feature_select_strategy='full' if it was trained with it."
        )
    kernel = tower.config._attn_implementation
    if proportional and kernel not in MASKS:
        raise UnsupportedModelError(
            f"{name}: proportional attention adds log sizes to the encoder's logits, and {kernel!r} takes no such mask; "
            f"load the vision tower with one of {', '.join(MASKS)}, or set proportional=False."
        )
    family.feature_layer(model)


@dataclass(frozen=True)
class Between:
    """What a layer shows between its attention and its MLP, for V views of t tokens.

    Attributes:
        queries, keys: [V, H, t, d]; `scale`: of the attention's logits.
        x: the stream after the attention, [V, t, C].
        size: number of original tokens in each token, [V, t].
        cls: whether the first token is a CLS token.
    """

    queries: Tensor
    keys: Tensor
    scale: float
    x: Tensor
    size: Tensor
    cls: bool


Choice = Callable[[Between], Merging]
"""What becomes of a layer's tokens; the same number must stay in every view, and CLS comes out first and unmerged."""


@dataclass
class Run:
    """One call of the encoder: V views of N tokens, of which t are left.

    Attributes:
        choices: of each layer; None: nothing happens there.
        source: which of the t tokens each original one is part of, [V, N]; -1 where it was dropped.
        size: number of original tokens in each of the layer's input tokens, [V, t]. `heads`: its queries and keys.
        pending: merging done in this layer's MLP, but not yet in the layer's output.
        last: merging in the layer that gives the features, and the sizes before it.
    """

    choices: list[Choice | None]
    source: Tensor
    size: Tensor
    heads: EncoderAttention | None = None
    pending: Merging | None = None
    last: tuple[Merging, Tensor] | None = None


class _OfThread(threading.local):
    run: Run | None = None


class MergingTower:
    """Merges or drops tokens between attention and MLP of every layer up to the one that gives the features.

    A hook cannot shorten the residual x in the middle of a layer, and need not. The MLP f runs on merged tokens m, so the
    layer returns x_i + f(m) for every member i; the next layer merges these, and their mean is m + f(m).

    Args:
        plan: (patches, layers) -> what chooses in each layer, or None where nothing happens.
        proportional: add log sizes to the attention's logits.
        done: called with the features that go to the projector, and the merged token of each of the P patches, [V, P]; -1
            for those that were dropped, whose features mean nothing.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        plan: Callable[[int, int], list[Choice | None]],
        proportional: bool,
        done: Callable[[Tensor, Tensor], None],
    ):
        family = vision_family_of(model)
        self.tower, self.projector = family.tower(model), family.projector(model)
        self.cls, self.depth = family.has_cls(model), family.feature_layer(model) + 1
        self.plan, self.proportional, self.done = plan, proportional, done
        self._here = _OfThread()

    @property
    def run(self) -> Run | None:
        """What is known of the encoder's pass that runs in this thread."""
        return self._here.run

    def install(self) -> list[RemovableHandle]:
        """Hook encoder and projector."""
        assert self.projector is not None
        handles = [self.projector.register_forward_pre_hook(self._features)]
        for i, layer in enumerate(layers_of(self.tower)):
            handles.append(layer.register_forward_pre_hook(self._enter(i), with_kwargs=True))
            if i < self.depth:
                handles += catch(self.tower, i, self._heads)
                handles.append(layer.get_submodule("layer_norm2").register_forward_pre_hook(self._merge(i)))
                handles.append(layer.get_submodule("mlp").register_forward_hook(self._unmerge))
        return handles

    def _begin(self, x: Tensor) -> Run:
        views, tokens, _ = x.shape
        choices = self.plan(tokens - self.cls, self.depth)
        size = torch.ones(views, tokens, device=x.device)
        return Run(choices, Merging.none(views, tokens, x.device).to, size)

    def _enter(self, i: int) -> Callable[..., tuple[tuple[Any, ...], dict[str, Any]]]:
        def enter(
            module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
        ) -> tuple[tuple[Any, ...], dict[str, Any]]:
            x = args[0]
            if i == 0:
                self._here.run = self._begin(x)
            run = self.run
            assert run is not None
            if run.pending is not None:
                with early_work():
                    x, run.size, run.pending = run.pending.merge(x, run.size), run.pending.sizes(run.size), None
            kwargs = dict(kwargs)
            mask = args[1] if len(args) > 1 else kwargs.pop("attention_mask", None)
            if self.proportional and run.size.shape[1] < run.source.shape[1]:
                mask = log_size(run.size, x) if mask is None else mask + log_size(run.size, x)
            return (x, mask, *args[2:]), kwargs

        return enter

    def _heads(self, heads: EncoderAttention) -> None:
        assert self.run is not None
        self.run.heads = heads

    def _merge(self, i: int) -> Callable[[nn.Module, tuple[Any, ...]], tuple[Any, ...] | None]:
        def merge(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
            run = self.run
            assert run is not None and run.heads is not None
            heads, run.heads = run.heads, None
            choose = run.choices[i]
            with early_work():
                views, tokens = run.size.shape
                found = Merging.none(views, tokens, run.size.device)
                if choose is not None:
                    queries, keys = (y.unflatten(1, (views, tokens)).transpose(0, 1) for y in (heads.queries, heads.keys))
                    found = choose(Between(queries, keys, heads.scale, args[0], run.size, self.cls))
                if i == self.depth - 1:
                    run.last = found, run.size
                if choose is None:
                    return None
                run.source, run.pending = found.then(run.source), found
                return (found.merge(args[0], run.size), *args[1:])

        return merge

    def _unmerge(self, module: nn.Module, args: Any, output: Tensor) -> Tensor | None:
        pending = None if self.run is None else self.run.pending
        return None if pending is None else pending.unmerge(output)

    def _features(self, module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        run, self._here.run = self.run, None
        if run is None or run.last is None:
            return None
        merging, size = run.last
        cls = size.shape[1] - args[0].shape[1]
        if cls not in (0, int(self.cls)):
            raise UnsupportedModelError(
                f"the projector got {args[0].shape[1]} vectors per view, and encoder layer {self.depth - 1} gave "
                f"{size.shape[1]}; pass no other vision_feature_layer than the model's own to a call."
            )
        merging, source = merging.without_first(cls), Merging(run.source, merging.count).without_first(cls)
        with early_work():
            features = source.unmerge(merging.merge(args[0], size[:, cls:]))
        self.done(features, source.to[:, int(self.cls) - cls :])
        return (features, *args[1:])


def log_size(size: Tensor, like: Tensor) -> Tensor:
    """Tokens merged into each key [V, t] -> what proportional attention adds to its logits [V, 1, 1, t]."""
    return size.log().to(like.dtype)[:, None, None, :]
