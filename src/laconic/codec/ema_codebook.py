"""A codebook of unit vectors that follows what is assigned to it by moving averages, and revives codes that nobody uses."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from laconic.codec.quantisers import Quantised, Quantiser


class EMAVQ(Quantiser):
    """Nearest of `codes` unit vectors by cosine; the codebook learns without gradients, in training and nowhere else.

    Counts and sums of what is assigned to a code are averaged over batches, and the code is their quotient, of length one
    again. It starts as the k-means of its first batch. A code whose count is under `dead` of an even share is replaced by a
    vector of the batch.

    The loss is ``mean((z - sg q)^2)`` minus, while fewer than `spread` of the codes are in use, the entropy of the mean of
    ``softmax(10 z . codes)``.

    Args:
        decay: of the averages.
        dead: share of the even count below which a code is replaced.
        spread: share of the codes, by perplexity, from which on the entropy is left out of the loss.
    """

    codebook: Tensor
    counts: Tensor
    sums: Tensor

    def __init__(self, codes: int, width: int, decay: float = 0.99, dead: float = 0.2, spread: float = 0.6):
        super().__init__()
        self.codes, self.width, self.decay, self.dead, self.spread = codes, width, decay, dead, spread
        self.register_buffer("codebook", F.normalize(torch.randn(codes, width), dim=-1))
        self.register_buffer("counts", torch.zeros(codes))
        self.register_buffer("sums", torch.zeros(codes, width))

    def forward(self, z: Tensor) -> Quantised:
        z = F.normalize(z.float(), dim=-1)
        learning = self.training and torch.is_grad_enabled()  # a frozen encoder's codes stay what they are
        if learning and not bool(self.counts.any()):
            self._begin(z.detach().flatten(0, -2))
        # As the batch met them: the updates below are made in place, and the backward pass needs what was used.
        codebook = self.codebook.clone()
        cosine = z @ codebook.T
        indices = cosine.argmax(-1)
        q = codebook[indices]
        loss = F.mse_loss(z, q)
        if learning:
            if perplexity(indices, self.codes) < self.spread * self.codes:
                mean = (10 * cosine).softmax(-1).flatten(0, -2).mean(0)
                loss = loss + (mean * mean.clamp_min(1e-9).log()).sum()
            self._follow(z.detach(), indices)
        return Quantised(z + (q - z).detach(), indices, loss)

    def vectors(self, indices: Tensor) -> Tensor:
        return self.codebook[indices]

    def _begin(self, z: Tensor, rounds: int = 5) -> None:
        """k-means of vectors [n, d] on the sphere, from vectors of theirs; every code begins with an even count."""
        self.codebook.copy_(z[torch.randint(len(z), (self.codes,), device=z.device)])
        for _ in range(rounds):
            counts, sums = self._assigned(z, (z @ self.codebook.T).argmax(-1))
            self.codebook.copy_(torch.where(counts[:, None] > 0, F.normalize(sums, dim=-1), self.codebook))
        self.counts.fill_(len(z) / self.codes)
        self.sums.copy_(self.codebook * self.counts[:, None])

    def _assigned(self, z: Tensor, indices: Tensor) -> tuple[Tensor, Tensor]:
        """How many vectors [n, d] each code has, and their sum."""
        counts = torch.bincount(indices, minlength=self.codes).float()
        return counts, torch.zeros_like(self.sums).index_add_(0, indices, z)

    def _follow(self, z: Tensor, indices: Tensor) -> None:
        """Move the averages by vectors [B, K, d] or [n, d], then the codes; revive those that are dead."""
        flat, numbers = z.flatten(0, -2), indices.flatten()
        counts, sums = self._assigned(flat, numbers)
        self.counts.lerp_(counts, 1 - self.decay)
        self.sums.lerp_(sums, 1 - self.decay)
        total = self.counts.sum()
        smoothed = (self.counts + 1e-5) / (total + 1e-5 * self.codes) * total  # Laplace: none is divided by zero
        self.codebook.copy_(F.normalize(self.sums / smoothed[:, None], dim=-1))
        dead = self.counts < self.dead * total / self.codes
        if found := int(dead.sum()):
            chances = _need(indices, self.codes).expand(indices.shape).flatten()
            taken = flat[torch.multinomial(chances, found, replacement=True)]
            self.codebook[dead] = taken
            self.counts[dead] = total / self.codes
            self.sums[dead] = taken * total / self.codes


def perplexity(indices: Tensor, codes: int) -> float:
    """How many codes are in use: the exponential of the entropy of their shares, 1 to `codes`."""
    shares = torch.bincount(indices.flatten(), minlength=codes) / indices.numel()
    return float(torch.special.entr(shares).sum().exp())


def _need(indices: Tensor, codes: int) -> Tensor:
    """Weight of each place of codes [B, K], the larger the fewer codes it uses; 1 where there are no places, [n]."""
    if indices.ndim == 1:
        return torch.ones(1, device=indices.device)
    used = [1 / perplexity(column, codes) for column in indices.flatten(0, -2).unbind(1)]
    return torch.tensor(used, device=indices.device)
