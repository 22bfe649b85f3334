"""Whisper's encoder with fewer tokens, by hooks: within its layers, and between it and the decoder."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedModel

from laconic.families.audio import loudness
from laconic.families.audio.whisper import columns_of_a_token, core_of, sound_tokens, token_seconds
from laconic.ops.similarity import means
from laconic.speech.clip import Clip, LayerView
from laconic.speech.contract import AudioMethod
from laconic.speech.figures import SpeechFigures, Window


@dataclass
class Row:
    """One window of the batch: first its sound, then its padding.

    Attributes:
        number: in the batch.
        sound, tail: tokens of both that are left. `padding`: tokens of padding that there were.
        to: the token of those left that each of the window's sound tokens is part of; -1 where it is gone.
        size: tokens that each token of sound stands for, fp32 [sound].
        plan: tokens of sound that are to go on from each layer, for methods that act inside.
    """

    number: int
    sound: int
    tail: int
    padding: int
    to: Tensor
    size: Tensor
    plan: list[int | None] = field(default_factory=list)

    def become(self, to: Tensor, count: int) -> None:
        """Each token of sound becomes part of the one that `to` [sound] says, of `count`; -1 where it is dropped."""
        stays = to >= 0
        size = torch.zeros(count, device=to.device).index_add(0, to[stays], self.size[stays])
        # what is dropped stands for nothing, and nothing stands for it
        self.to = torch.where(self.to >= 0, to[self.to.clamp(min=0)], -1)
        self.sound, self.size = count, size


@dataclass
class Run:
    """One call of the encoder.

    Attributes:
        features: spectrograms, [B, mels, columns].
        heads: queries and keys of the layer that runs, as projected, [B, t, D].
        merged: its stream after attention, shortened, [B, t', D]; `worked`: what its feed-forward network makes of that.
        to: the row of `merged` that each row of the layer becomes part of, [B, t].
        tokens: of every layer's attention and of its feed-forward network, summed over the batch.
    """

    rows: list[Row]
    features: Tensor
    heads: dict[str, Tensor] = field(default_factory=dict)
    merged: Tensor | None = None
    worked: Tensor | None = None
    to: Tensor | None = None
    tokens: list[tuple[int, int]] = field(default_factory=list)

    @property
    def length(self) -> int:
        """Rows of the stream: those of the longest window."""
        return max(row.sound + row.tail for row in self.rows)

    def mask(self, proportional: bool, like: Tensor) -> Tensor | None:
        """What attention adds to its logits for every key, [B, t]: log sizes, and -inf where a shorter window has no token;
        None where that is nothing. The padding that is left stands for all that there was."""
        added = torch.zeros(len(self.rows), self.length, device=like.device)
        for row in self.rows:
            if proportional:
                added[row.number, : row.sound] = row.size.log()
                added[row.number, row.sound :] = math.log(row.padding / row.tail) if row.tail else 0.0
            added[row.number, row.sound + row.tail :] = float("-inf")
        return added.to(like.dtype) if bool(added.any()) else None


def spread(there: int, wanted: int) -> Tensor:
    """`wanted` of `there` places, evenly spread, ascending."""
    return (torch.arange(wanted) * there) // max(1, wanted)


class _OfThread(threading.local):
    run: Run | None = None


class ShorterEncoder:
    """Hooks on an encoder that shorten what it returns.

    A hook cannot shorten a layer's residual stream x in its middle, and need not: the feed-forward network f runs on the
    shortened stream m, and the module after the layer gets m + f(m) in the place of what the layer returned.

    Args:
        done: called with what goes to the decoder, [B, m, D], and what its cross-attention adds to its logits, [B, m] or
            None.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        method: AudioMethod,
        figures: SpeechFigures,
        done: Callable[[Tensor, Tensor | None], None],
    ):
        self.model, self.method, self.figures, self.done = model, method, figures, done
        self.encoder: Any = core_of(model).encoder
        self.depth = len(self.encoder.layers)
        self._here = _OfThread()

    @property
    def run(self) -> Run:
        """The call that runs in this thread."""
        assert self._here.run is not None
        return self._here.run

    def install(self) -> list[RemovableHandle]:
        """Hook the encoder."""
        encoder = self.encoder
        handles = [
            encoder.register_forward_pre_hook(self._begin, with_kwargs=True),
            encoder.register_forward_hook(self._end),
            *(layer.register_forward_pre_hook(self._enter, with_kwargs=True) for layer in encoder.layers),
            encoder.layer_norm.register_forward_pre_hook(self._leave),
        ]
        for number, layer in enumerate(encoder.layers if self.method.inside else []):
            for name in ("q_proj", "k_proj"):
                handles.append(layer.self_attn.get_submodule(name).register_forward_hook(self._caught(name)))
            handles.append(layer.final_layer_norm.register_forward_pre_hook(self._shorten(number)))
            handles.append(layer.fc2.register_forward_hook(self._spread))
        return handles

    # -- the encoder's call ----------------------------------------------------------------------------------------
    def _begin(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        features = args[0] if args else kwargs["input_features"]
        given = args[1] if len(args) > 1 else kwargs.get("attention_mask")
        if given is not None and given.shape[1] != features.shape[2]:
            given = None  # that of the whole sound, of which this is one window
        window = self.encoder.embed_positions.num_embeddings
        rows = []
        for number, n in enumerate(sound_tokens(self.model, features, given).tolist()):
            own = torch.arange(n, device=features.device)
            row = Row(number, n, window - n, window - n, own, torch.ones_like(own, dtype=torch.float))
            if self.method.inside:
                row.plan = self.method.plan(n, self.figures.count(self.method, n), self.depth)
            if self.method.strip == "input":
                row.tail = self._silence(row)
            rows.append(row)
        self._here.run = Run(rows, features)

    def _silence(self, row: Row) -> int:
        """Tokens of padding that stay."""
        return min(row.tail, round(self.method.silence / token_seconds(self.model)))

    def _end(self, module: nn.Module, args: Any, output: Any) -> Any:
        run, self._here.run = self.run, None
        window = self.encoder.embed_positions.num_embeddings
        with self.figures.work():
            pieces = []
            for row in run.rows:
                hidden = output.last_hidden_state[row.number]
                sound, rest = hidden[: row.sound], hidden[row.sound :]
                if not self.method.inside:
                    sound = self._reduced(run, row, sound)
                there = row.tail  # all of it, or what was let in
                row.tail = self._silence(row)
                pieces.append(torch.cat([sound, rest[spread(there, row.tail)]]))
            output.last_hidden_state = nn.utils.rnn.pad_sequence(pieces, batch_first=True)
        for row in run.rows:
            self.figures.windows.append(Window(window, len(row.to), row.sound, row.tail, row.to))
        self.figures.encoded(run.tokens, len(run.rows))
        self.done(output.last_hidden_state, run.mask(self.method.proportional, output.last_hidden_state))
        return output

    def _reduced(self, run: Run, row: Row, sound: Tensor) -> Tensor:
        """The tokens [n, D] of a window's sound, shortened by a method that acts after the encoder."""
        energy = loudness(run.features[row.number], columns_of_a_token(self.model))[: row.sound]
        count, must = self.figures.count(self.method, row.sound), torch.zeros_like(row.to, dtype=torch.bool)
        found = self.method.reduce(Clip(sound, token_seconds(self.model), energy, count, must))
        place = torch.full_like(row.to, -1)
        place[found.kept] = torch.arange(len(found.kept), device=place.device)
        row.become(torch.where(found.to >= 0, place[found.to.clamp(min=0)], -1), len(found.kept))
        return sound[found.kept] if found.values is None else found.values.to(sound)

    # -- within its layers -----------------------------------------------------------------------------------------
    def _enter(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        run = self.run
        x = self._taken(run, args[0])[:, : run.length]
        mask = run.mask(self.method.proportional, x)
        run.tokens.append((x.shape[1], x.shape[1]))
        return (x, None if mask is None else mask[:, None, None], *args[2:]), kwargs

    def _leave(self, module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        return (self._taken(self.run, args[0])[:, : self.run.length], *args[1:])

    def _taken(self, run: Run, x: Tensor) -> Tensor:
        """A layer's output; where the layer was shortened, m + f(m) instead."""
        if run.merged is None or run.worked is None:
            return x
        x, run.merged, run.worked, run.to = run.merged + run.worked, None, None, None
        return x

    def _caught(self, name: str) -> Callable[[nn.Module, Any, Tensor], None]:
        def caught(module: nn.Module, args: Any, output: Tensor) -> None:
            self.run.heads[name] = output

        return caught

    def _shorten(self, number: int) -> Callable[[nn.Module, tuple[Any, ...]], tuple[Any, ...] | None]:
        def shorten(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
            run, x = self.run, args[0]
            with self.figures.work():
                before = x.shape[1]
                to = torch.zeros(x.shape[:2], dtype=torch.long, device=x.device)
                weight = torch.zeros(x.shape[:2], device=x.device)
                for row in run.rows:
                    found = self.method.step(self._view(run, row, number))
                    at = found.to
                    padding = torch.arange(row.tail, device=at.device)
                    to[row.number, : row.sound + row.tail] = torch.cat([at.clamp(min=0), found.count + padding])
                    weight[row.number, : row.sound] = row.size.masked_fill(at < 0, 0)
                    weight[row.number, row.sound : row.sound + row.tail] = 1
                    row.become(at, found.count)
                run.heads.clear()
                if run.length == before:
                    return None
                run.to, run.merged = to, means(x, to, run.length, weight)[0].to(x.dtype)
            run.tokens[-1] = (before, run.length)
            return (run.merged, *args[1:])

        return shorten

    def _view(self, run: Run, row: Row, number: int) -> LayerView:
        attention = self.encoder.layers[number].self_attn
        queries, keys = (
            run.heads[name][row.number, : row.sound].unflatten(-1, (attention.num_heads, -1)).transpose(0, 1)
            for name in ("q_proj", "k_proj")
        )
        return LayerView(number, self.depth, queries, keys, attention.scaling, row.plan[number])

    def _spread(self, module: nn.Module, args: Any, output: Tensor) -> Tensor | None:
        """Back to the layer's length, so that it can add the two; nobody reads the sum."""
        run = self.run
        if run.to is None:
            return None
        run.worked = output
        return output.gather(1, run.to[..., None].expand(-1, -1, output.shape[-1]))
