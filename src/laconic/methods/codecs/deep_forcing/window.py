"""The rolling cache of one layer: deep sinks, what recent queries score highest, and the newest frames."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from laconic.methods.codecs.deep_forcing.rotary import Channels, moved

SCORES = ("attention", "random", "recency")
REALIGN = ("sink_top", "sink", "none")


@dataclass(frozen=True)
class Policy:
    """What a full window keeps. All counts are frames.

    Attributes:
        window: frames, the chunk that is being made included, that are held before anything leaves.
        sink: first frames that always stay. `recent`: newest ones, the chunk included. `budget`: what is left of a full
            window; ``budget - sink - recent`` frames' worth of tokens are chosen from between.
        score: "attention": the sum of q . k over recent queries and heads; or two baselines.
        realign: which kept keys are moved in time to stand right before the recent frames.
    """

    window: int = 21
    sink: int = 10
    budget: int = 16
    recent: int = 4
    score: str = "attention"
    realign: str = "sink_top"

    def __post_init__(self) -> None:
        if not 0 <= self.sink <= self.budget - self.recent or not self.recent >= 1 or not self.budget <= self.window:
            raise ValueError(
                f"sink={self.sink}, recent={self.recent}, budget={self.budget}, window={self.window}: "
                "sink + recent must be at most the budget, the budget at most the window, and recent at least 1 frame."
            )
        for name, value, known in (("score", self.score, SCORES), ("realign", self.realign, REALIGN)):
            if value not in known:
                raise ValueError(f"{name}={value!r}: choose one of {', '.join(known)}.")


def scores(queries: Tensor, keys: Tensor) -> Tensor:
    """``sum_h sum_r q_rh . k_jh / (sqrt(d) H)`` of queries [B, H, r, d] and keys [B, H, n, d], summed over the batch, [n].

    The queries are summed first: one product instead of r.
    """
    return torch.einsum("bhd,bhnd->n", queries.sum(2), keys) / (keys.shape[-1] ** 0.5 * keys.shape[1])


class Window:
    """Keys and values of one layer, [B, H, T, d], RoPE applied, with the frame at which each token's key stands.

    Args:
        tokens: of a frame.

    Attributes:
        stands: frame of each token's key, [T]; `frames`: the frame that it came from, [T].
        selections: how often tokens were chosen.
    """

    def __init__(self, policy: Policy, tokens: int, channels: Channels):
        self.policy, self.tokens, self.channels = policy, tokens, channels
        self.keys: Tensor | None = None
        self.values: Tensor | None = None
        self.queries: Tensor | None = None
        self.stands = self.frames = torch.zeros(0, dtype=torch.long)
        self.selections = 0

    def __len__(self) -> int:
        return len(self.stands)

    @property
    def bytes(self) -> int:
        """Of keys, values and the queries that are kept for scoring."""
        return sum(x.nbytes for x in (self.keys, self.values, self.queries) if x is not None)

    def joined(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """All keys and values that a chunk attends to, its own last."""
        if self.keys is None or self.values is None:
            return keys, values
        return torch.cat([self.keys, keys], 2), torch.cat([self.values, values], 2)

    def begin(self, queries: Tensor, keys: Tensor, frame: int) -> None:
        """A chunk begins with its first denoising step: choose what stays, where it would not fit.

        Args:
            queries, keys: of the noisy chunk [B, H, n, d]. `frame`: its first frame.
        """
        policy, n = self.policy, self.tokens
        if self.keys is None or self.values is None or len(self) + keys.shape[2] <= policy.window * n:
            return
        sink, recent = policy.sink * n, policy.recent * n - keys.shape[2]
        if recent < 0:
            raise ValueError(f"a chunk of {keys.shape[2] // n} frames is longer than recent={policy.recent}.")
        stop = len(self) - recent
        asking = queries if self.queries is None else torch.cat([self.queries, queries], 2)
        chosen = sink + self._choose(asking[:, :, -policy.recent * n :], self.keys[:, :, sink:stop], frame)
        kept = torch.cat([torch.arange(sink), chosen, torch.arange(stop, len(self))])
        self.keys, self.values = self.keys[:, :, kept], self.values[:, :, kept]
        self.stands, self.frames = self.stands[kept], self.frames[kept]
        self.selections += 1
        self._realign(sink, len(chosen), int(self.stands[-recent]) if recent else frame)

    def _choose(self, queries: Tensor, keys: Tensor, frame: int) -> Tensor:
        """Numbers of the candidates that stay, ascending."""
        policy, most = self.policy, keys.shape[2]
        count = (policy.budget - policy.sink - policy.recent) * self.tokens
        if policy.score == "recency":
            return torch.arange(most - count, most)
        if policy.score == "random":
            return torch.randperm(most, generator=torch.Generator().manual_seed(frame))[:count].sort().values
        return scores(queries, keys).topk(count).indices.sort().values

    def _realign(self, sink: int, chosen: int, recent: int) -> None:
        """Move the sink, and the chosen tokens frame by frame, to stand right before the frame `recent`."""
        assert self.keys is not None
        target, held = self.stands.clone(), chosen // self.tokens
        if self.policy.realign != "none" and sink:
            target[:sink] += recent - held - self.policy.sink - int(self.stands[0])
        if self.policy.realign == "sink_top":
            target[sink : sink + chosen] = recent - held + torch.arange(chosen) // self.tokens
        self.keys = moved(self.keys, target - self.stands, self.channels)
        self.stands = target

    def finish(self, queries: Tensor, keys: Tensor, values: Tensor, frame: int) -> None:
        """A chunk is done: store what its clean pass made, [B, H, n, d]."""
        self.keys, self.values = self.joined(keys, values)
        asking = queries if self.queries is None else torch.cat([self.queries, queries], 2)
        self.queries = asking[:, :, -self.policy.recent * self.tokens :]
        new = frame + torch.arange(keys.shape[2]) // self.tokens
        self.stands, self.frames = torch.cat([self.stands, new]), torch.cat([self.frames, new])
