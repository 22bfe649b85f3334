"""The networks of CrossLMM: gated cross-attention from rows of a decoder layer to all visual tokens (arXiv 2505.17020)."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel

from laconic.artifact import Artifact
from laconic.families import family_of
from laconic.measure.cost import Shape
from laconic.ops.rows import gathered, scattered
from laconic.stream.readout import readout


class Side(NamedTuple):
    """All visual tokens as one cross-attention reads them.

    Attributes:
        keys, values: [B, Hkv, N, d]. `valid`: False at padding, [B, N]; None where there is none.
    """

    keys: Tensor
    values: Tensor
    valid: Tensor | None = None


class CrossAttention(nn.Module):
    """``softmax(W_q u (W_k V)^T / sqrt(d)) W_v V`` through W_o: no mask, no positions, the heads of the host.

    Args:
        width: D, of rows and visual tokens. `shape`: of the host, whose query heads share key-value heads as its own do.
    """

    def __init__(self, width: int, shape: Shape):
        super().__init__()
        self.heads, self.kv_heads, size = shape.heads, shape.kv_heads, shape.head_dim
        self.query, self.out = (
            nn.Linear(width, self.heads * size, bias=False),
            nn.Linear(self.heads * size, width, bias=False),
        )
        self.key, self.value = (nn.Linear(width, self.kv_heads * size, bias=False) for _ in range(2))

    def side(self, memory: Tensor, valid: Tensor | None = None) -> Side:
        """Visual tokens [B, N, D], and which of them are real, [B, N]."""
        keys, values = (f(memory).unflatten(-1, (self.kv_heads, -1)).transpose(1, 2) for f in (self.key, self.value))
        return Side(keys, values, valid)

    def forward(self, rows: Tensor, side: Side) -> Tensor:
        """Rows [B, n, D] -> what each finds among the visual tokens, [B, n, D]; zeros where there are none.

        The query heads of a key-value head become rows: every row sees the same tokens, so keys are not repeated.
        """
        batch, n = rows.shape[:2]
        query = self.query(rows).unflatten(-1, (self.kv_heads, self.heads // self.kv_heads, -1))
        query = query.permute(0, 2, 3, 1, 4).flatten(2, 3)  # [B, Hkv, G n, d]
        keys, values, valid = side.keys.to(query), side.values.to(query), side.valid
        mask = some = None
        if valid is not None:
            some = valid.any(1)[:, None]
            mask = (valid | ~some)[:, None, None].expand(-1, -1, query.shape[2], -1)
        found = F.scaled_dot_product_attention(query, keys, values, attn_mask=mask)
        found = found.unflatten(2, (-1, n)).permute(0, 3, 1, 2, 4).reshape(batch, n, -1)
        out: Tensor = self.out(found)
        return out if some is None else out * some[..., None]


class Insert(nn.Module):
    """What one decoder layer gets after its self-attention: ``h_vis += tanh(a_v) CA_v(norm(h_vis), V)`` and
    ``h_text += tanh(a_t) CA_t(norm(h_text), V)``, both from the same h. The scalars a are 0 at first: nothing changes.

    Args:
        visual, text: whether there is each of the two.
    """

    def __init__(self, width: int, shape: Shape, visual: bool, text: bool):
        super().__init__()
        self.norm, self.memory_norm = nn.RMSNorm(width, eps=1e-6), nn.RMSNorm(width, eps=1e-6)
        self.visual = CrossAttention(width, shape) if visual else None
        self.text = CrossAttention(width, shape) if text else None
        self.visual_gate, self.text_gate = nn.Parameter(torch.zeros(())), nn.Parameter(torch.zeros(()))

    def sides(self, memory: Tensor, valid: Tensor | None = None) -> tuple[Side | None, Side | None]:
        """Visual tokens [B, N, D] as visual rows and as text read them; they depend on the tokens alone."""
        memory = self.memory_norm(memory)
        return tuple(None if part is None else part.side(memory, valid) for part in (self.visual, self.text))  # type: ignore[return-value]

    def forward(self, hidden: Tensor, shown: Tensor | None, visual: Side | None, text: Side | None) -> Tensor:
        """What is added to hidden states [B, n, D], in fp32.

        Args:
            shown: rows that show an image, bool [B, n]; None where all are text.
            visual, text: what each kind of row reads; None: nothing.
        """
        rows = self.norm(hidden.float())
        if shown is None:
            return torch.zeros_like(rows) if text is None else self.asked(rows, text)
        more = torch.zeros_like(rows)
        if visual is not None and bool(shown.any()):
            assert self.visual is not None
            found = torch.tanh(self.visual_gate) * self.visual(gathered(rows, shown), visual)
            more = scattered(more, shown, found)
        return more if text is None else scattered(more, ~shown, self.asked(gathered(rows, ~shown), text))

    def asked(self, rows: Tensor, side: Side) -> Tensor:
        """``tanh(a_t) CA_t`` of normalised text rows [B, n, D]."""
        assert self.text is not None
        return torch.tanh(self.text_gate) * self.text(rows, side)


class Beside(nn.Module):
    """The projector, which pooled tokens and visual tokens share, and the inserts of some layers.

    Args:
        layers: decoder layers that get one. `visual`, `text`: see `Insert`; without both, pooling alone is trained.

    Raises:
        UnsupportedModelError: a projector of another kind (`readout`).
    """

    def __init__(self, model: PreTrainedModel, layers: tuple[int, ...], visual: bool, text: bool):
        super().__init__()
        width = int(model.config.get_text_config().hidden_size)
        shape = Shape.of(model, family_of(model).stack(model))
        self.layers = layers if visual or text else ()
        self.readout = readout(model)
        self.inserts = nn.ModuleDict({str(layer): Insert(width, shape, visual, text) for layer in self.layers})

    def insert(self, layer: int) -> Insert:
        """That of a decoder layer."""
        found = self.inserts[str(layer)]
        assert isinstance(found, Insert)
        return found


def inserted(depth: int, every: int, first: int) -> tuple[int, ...]:
    """Decoder layers of `depth` that get an insert: `first`, and every `every`-th one after it."""
    return tuple(range(first, depth, every))


def load(artifact: Artifact, model: PreTrainedModel) -> Beside:
    """The trained networks, in fp32 and frozen."""
    data = artifact.data
    return artifact.restore(Beside(model, tuple(data["layers"]), data["visual"], data["text"]))
