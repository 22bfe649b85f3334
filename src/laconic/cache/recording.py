"""A prefill pass that was recorded, and runs again without the model's work: what many methods make of one prompt.

While it runs again, every decoder layer is replaced by one that gives its cache the queries, keys and values of the
recording. All else is the session's own way: hooks, steps, seams, the method's choice, storage, figures. So a replayed pass
stores what a pass of the model would, and its logits are the recorded ones. Times are the exception: most of the work is not
done.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from transformers import PreTrainedModel

from laconic.cache.cache import CompressedCache
from laconic.cache.costs import count
from laconic.cache.hidden import Hidden, HiddenSeam
from laconic.cache.hooks import PseudoTokens, SeesSegments, SelectsStream, SparsePrefill
from laconic.cache.incoming import Pass
from laconic.cache.layer import CompressedLayer
from laconic.errors import SessionError, UnsupportedModelError

if TYPE_CHECKING:
    from laconic.method import Method


@dataclass
class Recording:
    """What one prefill pass brought to the layers of a cache.

    Attributes:
        passes: of the compressed layers, in order. `hidden`: what each of them read, where a method asked for it.
        states: what the last decoder layer returned, [B, T, hidden].
        pseudo: pseudo tokens that ran after the prompt.
    """

    passes: list[Pass] = field(default_factory=list)
    hidden: list[Hidden | None] = field(default_factory=list)
    states: torch.Tensor | None = None
    pseudo: int = 0


class RecordingCache(CompressedCache):
    """A cache to start a pass with (``past_key_values=``) that notes what comes to its layers while it is `recorded`."""

    recording: Recording | None = None

    def after_prefill(self, layer: CompressedLayer, new: Pass) -> None:
        if self.recording is not None and self.step is not None:
            self.recording.passes.append(replace(new))
            self.recording.hidden.append(self.hidden)
            self.recording.pseudo = self.step.pseudo
        super().after_prefill(layer, new)


@contextmanager
def recorded(stack: PreTrainedModel, cache: RecordingCache) -> Iterator[Recording]:
    """Open for one pass of the decoder `stack` on `cache`, the first one, which is recorded."""
    recording = cache.recording = Recording()

    def note(module: nn.Module, args: Any, output: Any) -> None:
        if not isinstance(output, torch.Tensor):
            raise UnsupportedModelError(f"layers of {type(stack).__name__} return more than hidden states; run it plainly.")
        recording.states = output

    layers: Any = stack.layers
    handle = layers[-1].register_forward_hook(note)
    try:
        yield recording
    finally:
        handle.remove()
        cache.recording = None


@contextmanager
def replaying(stack: PreTrainedModel, recording: Recording) -> Iterator[None]:
    """While open, the decoder `stack` runs the recorded pass again, whatever its input, in an open session."""
    layers: Any = stack.layers
    stack.layers = nn.ModuleList(_Echo(i, len(layers), recording) for i in range(len(layers)))  # type: ignore[assignment]
    try:
        yield
    finally:
        stack.layers = layers


def repeatable(method: Method) -> bool:
    """Whether a recorded pass serves `method`: it acts on the cache alone, and changes nothing of what runs before the cut.

    Pseudo tokens run after the prompt and change nothing of it, but they have to be in the recording: see `needs`.
    """
    alone = method.claims <= {"cache.entries", "cache.storage"}
    return alone and not isinstance(method, SparsePrefill | SelectsStream)


def needs(method: Method, prompt: torch.Tensor) -> Hashable:
    """What a recording of `prompt` [1, T] must have to serve `method`, which a session has prepared: pseudo tokens, where
    they begin, what they see, and whether hidden states are read; () where the prompt alone does. Equal needs, equal
    recordings."""
    reads = HiddenSeam in method.seams
    if not isinstance(method, PseudoTokens) or method.neutral:
        return (reads,) if reads else ()
    segments = method.segments(prompt, None) if isinstance(method, SeesSegments) else None
    seen = None if segments is None else tuple(segments[0])
    return tuple(method.pseudo(prompt, None)[0].tolist()), method.pseudo_offset(), reads, seen


class _Echo(nn.Module):
    """A decoder layer of a replayed pass. It does what `CompressedLayer.attend` does, in its order, except attending."""

    def __init__(self, number: int, layers: int, recording: Recording):
        super().__init__()
        self.number, self.last, self.recording = number, number == layers - 1, recording

    def forward(self, hidden_states: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        cache = kwargs["past_key_values"]
        layer, step = cache.layers[self.number], cache.step
        new, pseudo = replace(self.recording.passes[layer.number]), self.recording.pseudo
        if step.start or step.length != new.queries.shape[2] or step.pseudo != pseudo:
            raise SessionError(
                f"the recording has {new.queries.shape[2]} tokens and {pseudo} pseudo tokens, this pass {step.length} after "
                f"{step.start}, and {step.pseudo}; record the pass that is to be repeated."
            )
        layer.update(new.keys, new.values)
        if cache.before_prefill(layer, new) is not None:
            raise SessionError(f"{cache.method.name} lets only some tokens attend, so a recorded pass does not serve it.")
        b, h, t = new.queries.shape[:3]
        count(layer, new.queries.new_empty(b, h, t + pseudo, 0), new.keys)
        layer.seen = step.start + step.length
        cache.hidden = self.recording.hidden[layer.number]
        cache.after_prefill(layer, new)
        cache.hidden = None
        if not self.last:
            return hidden_states
        assert self.recording.states is not None
        return self.recording.states
