"""A probabilistic context-free grammar in Chomsky's normal form: the inside algorithm, and fitting it to sequences."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Grammar(nn.Module):
    """``S -> A``, ``A -> B C``, ``T -> word``: A is a non-terminal, T a pre-terminal, B and C are either.

    Symbols are numbered with the non-terminals first. All probabilities are softmaxes of free parameters.

    Args:
        inner, leaves, words: how many non-terminals, pre-terminals and words there are.
    """

    def __init__(self, inner: int, leaves: int, words: int):
        super().__init__()
        self.inner, self.leaves = inner, leaves
        both = inner + leaves
        self.root = nn.Parameter(torch.randn(inner))
        self.rules = nn.Parameter(torch.randn(inner, both * both))
        self.emissions = nn.Parameter(torch.randn(leaves, words))

    def forward(self, sentences: Tensor) -> Tensor:
        """Log-probability of each sentence [B, n], n >= 2: the sum over all its trees.

        ``chart[w][:, i]`` has log p(symbol -> words i .. i + w) for every symbol, [B, positions, symbols].
        """
        rules = self.rules.log_softmax(-1)
        leaves = self.emissions.log_softmax(-1).T[sentences]  # [B, n, leaves]
        nothing = leaves.new_full((*leaves.shape[:2], self.inner), -torch.inf)
        chart = [torch.cat([nothing, leaves], -1)]
        n = sentences.shape[1]
        for width in range(1, n):
            places = n - width
            pairs = torch.stack(
                [
                    chart[left][:, :places, :, None] + chart[width - 1 - left][:, left + 1 : left + 1 + places, None, :]
                    for left in range(width)
                ]
            )
            summed = _logsumexp(pairs, 0).flatten(-2)  # [B, places, symbols^2]
            spans = _logsumexp(summed[:, :, None] + rules, -1)
            chart.append(torch.cat([spans, spans.new_full((*spans.shape[:2], self.leaves), -torch.inf)], -1))
        total: Tensor = torch.logsumexp(self.root.log_softmax(-1) + chart[-1][:, 0, : self.inner], -1)
        return total


def _logsumexp(x: Tensor, dim: int) -> Tensor:
    """Like torch's, with a gradient of 0 instead of nan where everything is -inf."""
    top = x.detach().amax(dim, keepdim=True).clamp(min=-1e30)
    total = (x - top).exp().sum(dim)
    alive = total > 0
    logs = torch.where(alive, total, 1).log() + top.squeeze(dim)
    return torch.where(alive, logs, -torch.inf)


def fit(sentences: Tensor, inner: int, leaves: int, words: int, steps: int = 200, lr: float = 0.1, seed: int = 0) -> Grammar:
    """The grammar that Adam finds for sentences [B, n] of one length from one start."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        grammar = Grammar(inner, leaves, words)
    optimizer = torch.optim.Adam(grammar.parameters(), lr=lr)
    for _ in range(steps):
        optimizer.zero_grad()
        (-grammar(sentences).mean()).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return grammar


@torch.no_grad()
def perplexity(grammar: Grammar, sentences: Tensor) -> float:
    """Per word, of sentences [B, n] of one length. The length itself is not predicted."""
    return float((-grammar(sentences).mean() / sentences.shape[1]).exp())
