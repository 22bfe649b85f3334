"""CCF's network: an encoder whose memory tokens see a growing part of their segment, and the matrices that project them."""

from __future__ import annotations

import copy
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from laconic.cache.observe import rotate
from laconic.errors import UnsupportedModelError
from laconic.families import family_of
from laconic.measure.cost import Shape
from laconic.memory.compressor import PrefixCompressor, decoder_flops, embedded, slots_of
from laconic.memory.encoder import Encoder
from laconic.memory.prefix import Prefix, read


class SegmentStates(PrefixCompressor):
    """Steps 2 and 3 of the method: states of a segment, and the entries that they become.

    Args:
        marker: the token whose embedding the memory token starts from, that of the end of a text.

    Raises:
        UnsupportedModelError: an attention without separate key and value projections.
    """

    def __init__(self, model: PreTrainedModel, segment: int, marker: int):
        super().__init__(segment)
        family = family_of(model)
        family.check_undoing(family.stack(model), "placing memories")
        attentions: list[Any] = [family.attention(layer) for layer in family.layers(model)]
        if missing := [name for name in ("k_proj", "v_proj") if not hasattr(attentions[0], name)]:
            raise UnsupportedModelError(
                f"{type(attentions[0]).__name__} has no {missing[0]}, from which that of memories could start; use a model "
                "with separate projections."
            )
        self.encoder = Encoder(model)
        self.keys, self.values = (
            nn.ModuleList(copy.deepcopy(getattr(x, name)).float().requires_grad_() for x in attentions)
            for name in ("k_proj", "v_proj")
        )
        self.embedding = nn.Parameter(embedded(model, torch.tensor([[marker]], device=model.device))[0, 0].clone())

    def encode(self, model: PreTrainedModel, ids: Tensor, slots: int) -> Tensor:
        """What the memory tokens of one segment [B, l] bring to the attention of every layer, [L, B, slots, d]."""
        rows, tokens = ids.shape
        every = tokens // slots
        mixed = torch.cat([embedded(model, ids), self.embedding.expand(rows, slots, -1)], 1)
        text = torch.arange(tokens, device=ids.device)
        at = torch.cat([text, every * torch.arange(1, slots + 1, device=ids.device)])
        seen: list[Tensor] = []

        def note(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            seen.append((args[0] if args else kwargs["hidden_states"])[:, -slots:])

        with ExitStack() as restore:
            for layer in self.encoder.decoder.layers:
                restore.callback(layer.self_attn.register_forward_pre_hook(note, with_kwargs=True).remove)
            mask = visible(tokens, slots, ids.device)
            self.encoder.decoder(
                inputs_embeds=mixed,
                attention_mask=torch.zeros(mask.shape, device=ids.device).masked_fill(~mask, float("-inf"))[None, None],
                position_ids=at.expand(rows, -1),
                use_cache=False,
            )
        return torch.stack(seen)

    def entries(self, model: PreTrainedModel, states: Tensor, start: int) -> Prefix:
        """Keys and values of states [L, B, m, d], at the positions from `start` on."""
        family = family_of(model)
        shape = Shape.of(model, family.stack(model))
        at = torch.arange(start, start + states.shape[2], device=states.device)[None]
        cos, sin = family.cos_sin(family.stack(model), 0, at)
        keys, values = [], []
        for layer, own, by_key, by_value in zip(family.layers(model), states, self.keys, self.values, strict=True):
            k, v = (project(own).unflatten(-1, (-1, shape.head_dim)) for project in (by_key, by_value))
            norm: Any = getattr(family.attention(layer), "k_norm", None)
            k = k if norm is None else norm(k)
            keys.append(rotate(k.transpose(1, 2).clone(), cos, sin))
            values.append(v.transpose(1, 2))
        return Prefix(tuple(keys), tuple(values), start + states.shape[2])

    def full(self, ids: Tensor) -> list[Tensor]:
        """The segments of contexts [B, n] that are compressed."""
        return [piece for piece in ids.split(self.segment, 1) if piece.shape[1] == self.segment]

    def prefix(self, model: PreTrainedModel, opening: Tensor, ids: Tensor, states: list[Tensor]) -> Prefix:
        """The opening, the states of all full segments, and the rest of the contexts as the model reads it."""
        made = read(model, opening.expand(len(ids), -1)) if len(opening) else None
        if states:
            found = self.entries(model, torch.cat(states, 2), 0 if made is None else made.seen)
            made = found if made is None else made.followed_by(found)
        rest = ids[:, len(states) * self.segment :]
        made = read(model, rest, made) if rest.shape[1] else made
        assert made is not None
        return made

    def forward(self, model: PreTrainedModel, opening: Tensor, ids: Tensor, keep: float) -> Prefix:
        slots = slots_of(self.segment, keep)
        return self.prefix(model, opening, ids, [self.encode(model, piece, slots) for piece in self.full(ids)])

    def flops(self, shape: Shape, opening: int, tokens: int, keep: float) -> int:
        segments, rest = divmod(tokens, self.segment)
        slots = slots_of(self.segment, keep)
        each = decoder_flops(shape, self.segment + slots)
        projected = sum(2 * module.weight.numel() * slots for module in (*self.keys, *self.values))  # type: ignore[operator]
        before = opening + segments * slots
        pairs = 4 * shape.head_dim * shape.heads * rest * before * shape.layers
        return decoder_flops(shape, opening) + segments * (each + projected) + decoder_flops(shape, rest) + pairs


def visible(tokens: int, slots: int, device: torch.device) -> Tensor:
    """What each of `tokens` and then `slots` memory tokens sees, bool [T, T]: text the text before it, memory i the first
    ``(i + 1) * (tokens // slots)`` tokens and itself."""
    at = torch.arange(tokens + slots, device=device)
    until = torch.where(at < tokens, at + 1, (at - tokens + 1) * (tokens // slots))
    return (at[None] < until[:, None]) & (at[None] < tokens) | (at[None] == at[:, None])
