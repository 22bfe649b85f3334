"""The networks of LLaVA-Mini: a few queries that compress an image, and decoder layers that fuse it into the text."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from laconic.artifact import Artifact
from laconic.memory.encoder import Encoder


def places(side: int, grid: int, width: int) -> Tensor:
    """The fixed sin-cos code of a `side` x `side` grid laid over one of `grid` x `grid` cells, [side^2, width]: half of the
    channels for rows, half for columns; each place is the middle of its cell, in cells of the large grid.

    Raises:
        ValueError: a width that four does not divide.
    """
    if width % 4:
        raise ValueError(f"llava_mini: a decoder of width {width} has no code of rows and columns; it must divide by 4.")
    middles = (torch.arange(side, dtype=torch.float32) + 0.5) * grid / side - 0.5
    rates = 10000.0 ** -(torch.arange(width // 4, dtype=torch.float32) / (width // 4))
    angles = middles[:, None] * rates
    axis = torch.cat([angles.sin(), angles.cos()], 1)  # [side, width / 2]
    return torch.cat([axis.repeat_interleave(side, 0), axis.repeat(side, 1)], 1)


class Compressor(nn.Module):
    """``A = softmax((LN(Q) + PE_C) (LN(H) + PE_N)^T / sqrt(D));  H_c = A H``, values as they are (arXiv 2501.03895).

    Norms and scale are the release's: without them, the position codes alone would choose one token each.

    Args:
        width: D. `side`: C, of the C x C learned queries.
    """

    def __init__(self, width: int, side: int):
        super().__init__()
        self.side = side
        self.queries = nn.Parameter(torch.randn(side**2, width) * 0.02)
        self.query_norm, self.key_norm = nn.LayerNorm(width), nn.LayerNorm(width)

    def attention(self, visual: Tensor) -> Tensor:
        """Tokens of an image, [B, N, D], N a square -> what each query takes of them, [B, C^2, N]."""
        width, grid = visual.shape[-1], round(visual.shape[1] ** 0.5)
        query = self.query_norm(self.queries) + places(self.side, grid, width).to(visual)
        key = self.key_norm(visual) + places(grid, grid, width).to(visual)
        return (query @ key.mT * width**-0.5).softmax(-1)

    def forward(self, visual: Tensor) -> Tensor:
        """Tokens of an image, [B, N, D] -> [B, C^2, D]."""
        return self.attention(visual) @ visual


class Mini(nn.Module):
    """Compression to one of several sizes, and pre-fusion by copies of the model's first decoder layers.

    Args:
        model: whose layers are copied.
        sides: C of each size; as many queries as the image has tokens leave it as it is.
        fusion: decoder layers; 0: text stays as it is (an ablation).
    """

    def __init__(self, model: PreTrainedModel, sides: tuple[int, ...], fusion: int):
        super().__init__()
        width = int(model.config.get_text_config().hidden_size)
        self.compressors = nn.ModuleDict({str(side): Compressor(width, side) for side in sides})  # type: ignore[arg-type]
        self.fusion = Encoder(model, fusion) if fusion else None

    def compressed(self, visual: Tensor, side: int) -> Tensor:
        """Tokens of an image, [B, N, D] -> [B, side^2, D]; all of them, where there are no more."""
        return visual if side**2 == visual.shape[1] else self.compressors[str(side)](visual)

    def fused(self, visual: Tensor, text: Tensor) -> Tensor:
        """Text that has read the image, [B k, T, D].

        Args:
            visual: tokens of B images, [B, N, D]. They come first and see no text, so they run once for all k questions.
            text: embeddings of k questions about each of them in turn, [B k, T, D]; padding on the right is not seen.
        """
        if self.fusion is None:
            return text
        cache, n = self.fusion.entries(visual), visual.shape[1]
        cache.batch_repeat_interleave(len(text) // len(visual))
        at = torch.arange(n, n + text.shape[1], device=text.device)[None].expand(len(text), -1)
        out: Tensor = self.fusion.decoder(
            inputs_embeds=text, past_key_values=cache, position_ids=at, use_cache=True
        ).last_hidden_state
        return out


def load(artifact: Artifact, model: PreTrainedModel) -> Mini:
    """The trained networks, in fp32 and frozen."""
    return artifact.restore(Mini(model, tuple(artifact.data["sides"]), artifact.data["fusion"]))
