"""What tokens have for themselves in a block of a diffusion transformer; blocks differ in who attends to whom."""

from __future__ import annotations

from torch import Tensor, nn


class Modulated(nn.Module):
    """Norms, projections, MLP (x 4, GELU) and AdaLN of one kind of tokens x [B, n, w] (DiT, arXiv 2212.09748).

    A block asks for `modulation`, projects with `project`, attends as it likes, and adds with `write`.

    Args:
        zero: modulations start at 0 (AdaLN-zero), so that nothing is added before training.
        last: tokens that are read and not written, as in a last block whose output at them nobody needs.
    """

    def __init__(self, width: int, heads: int, zero: bool = False, last: bool = False):
        super().__init__()
        self.heads = heads
        self.norms = nn.ModuleList(nn.LayerNorm(width, elementwise_affine=False) for _ in range(1 if last else 2))
        self.qkv = nn.Linear(width, 3 * width)
        if not last:
            self.out = nn.Linear(width, width)
            self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.modulate = nn.Linear(width, (2 if last else 6) * width)
        if zero:
            nn.init.zeros_(self.modulate.weight)
            nn.init.zeros_(self.modulate.bias)

    def modulation(self, condition: Tensor) -> tuple[Tensor, ...]:
        """Shift, scale and gate of attention, then of the MLP, from a condition [..., w] that broadcasts to x."""
        shift, scale, *rest = self.modulate(condition).chunk(2 if len(self.norms) == 1 else 6, -1)
        return shift, scale, *rest

    def project(self, x: Tensor, m: tuple[Tensor, ...]) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values [B, H, n, d] of x, normed and modulated."""
        q, k, v = split_heads(self.qkv(self.norms[0](x) * (1 + m[1]) + m[0]), 3, self.heads)
        return q, k, v

    def write(self, x: Tensor, attended: Tensor, m: tuple[Tensor, ...]) -> Tensor:
        """x with what it attended to, [B, H, n, d], and with its MLP."""
        x = x + m[2] * self.out(attended.transpose(1, 2).flatten(2))
        added: Tensor = x + m[5] * self.mlp(self.norms[1](x) * (1 + m[4]) + m[3])
        return added


def split_heads(x: Tensor, parts: int, heads: int) -> Tensor:
    """Projections x [B, n, parts * w], one after the other, as [parts, B, H, n, d]."""
    return x.unflatten(-1, (parts, heads, -1)).permute(2, 0, 3, 1, 4)
