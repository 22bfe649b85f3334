"""LoCoCo: drop-in convolutions fold what is old into a memory of fixed size (arXiv 2406.05317)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
import torch.nn.functional as F

from laconic.artifact import Artifact
from laconic.budget import Budget
from laconic.cache.contract import CacheMethod
from laconic.cache.layer import CompressedLayer
from laconic.cache.observe import Observation
from laconic.cache.parts.base import DensePart, Part
from laconic.errors import BudgetError
from laconic.method import register
from laconic.methods.cache.lococo import network
from laconic.step import Step

if TYPE_CHECKING:
    from transformers import PreTrainedModel

PUBLISHED_MEMORY = 512
MIXED = -1
"""Token index of a learned slot: it stands for no single token."""

Slots = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
"""Keys [1, Hkv, m, D] and values [1, Hkv, m, Dv] of one row, learned slots first, and their token indices [1, Hkv, m]."""


@register(
    "lococo",
    site="cache",
    mechanism="eviction and learned merging",
    source="arXiv 2406.05317",
    query_aware=True,
    training="trained",
    inferred="scores are averaged over the query heads of a KV head (the release runs without grouped queries only)",
)
@dataclass(kw_only=True)
class LoCoCo(CacheMethod):
    """Squeeze the memory back to M entries as soon as more than M + slack are stored: half heavy hitters, half mixtures.

    ``s`` is what every entry received from the queries of the *last* pass (column sums, not accumulated). The best
    ``M - int(M (1 - keep_rate))`` stay as they are, the rest is mixed into the other slots by a convolution (see
    `network.Mixer`). While decoding, a pass is one token, and so the memory is squeezed every `slack` + 1 tokens. For the
    published recurrence run the prompt in chunks (``generate(..., prefill_chunk_size=)``); compressing after a chunk, as
    here, and before the next one, as published, are the same.

    Args:
        memory: M; None takes the artifact's, in mode "hh" the budget's, or 512 when there is none.
        keep_rate: share of M for heavy hitters (0.5); the artifact must have the slots that it leaves.
        slack: entries over M that are tolerated (16).
        local: newest entries that always stay, among the heavy ones and up to half of M (0).
        mode: ``"conv"``, or ``"hh"``: the M best entries stay and nothing is mixed; needs no artifact.
        artifact: what `laconic fit lococo` wrote: a file, a shipped name, or a Hub id. None takes the one shipped for
            these weights. It works for one memory size and share only.

    Raises:
        BudgetError: in mode "conv", a budget that is not the artifact's M.
        ArtifactError: none for this model.
    """

    memory: int | None = None
    keep_rate: float = 0.5
    slack: int = 16
    local: int = 0
    mode: Literal["conv", "hh"] = "conv"
    artifact: str | None = None
    evicts_while_decoding = True
    default_keep: ClassVar[float | None] = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.mode not in ("conv", "hh"):
            raise ValueError(f"lococo: mode={self.mode!r}: choose 'conv' or 'hh'.")
        if not 0 < self.keep_rate < 1:
            raise ValueError(f"lococo: keep_rate={self.keep_rate!r} must lie between 0 and 1.")
        for name, least in (("memory", 2), ("slack", 0), ("local", 0)):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int) or value < least):
                raise ValueError(f"lococo: {name}={value!r} must be a whole number of at least {least}.")
        if self.mode == "hh":
            self._fix(self.memory or (PUBLISHED_MEMORY if self.budget_from_parameters else None))

    def attach(self, model: PreTrainedModel) -> None:
        """Load the mixers of mode "conv"."""
        if self.mode == "hh" or self.neutral:
            return
        artifact = Artifact.find(self.name, model, self.artifact, "use mode='hh'")
        layers, memory = network.load(artifact), int(artifact.data["memory"])
        if self.memory not in (None, memory):
            raise BudgetError(f"lococo: memory={self.memory}, but the artifact was trained for {memory} entries.")
        wanted, slots = network.learned_slots(memory, self.keep_rate), network.slots_of(layers)
        if slots != wanted:
            raise BudgetError(
                f"lococo: keep_rate={self.keep_rate} leaves {wanted} learned slots of {memory}, but the artifact has "
                f"{slots}."
            )
        self._heavy, self._slots = memory - slots, memory
        if self.local > self._heavy:
            raise BudgetError(f"lococo: local={self.local} is more than the {self._heavy} heavy entries of the memory.")
        self._mixers = layers.to(model.device)
        self._fix(memory)

    def _fix(self, memory: int | None) -> None:
        """The memory is this large from now on; a budget in tokens must be the same."""
        if memory is None:
            return
        if self.budget_from_parameters:
            self.budget = Budget(tokens=memory)
        elif self.budget.tokens not in (None, memory):
            raise BudgetError(
                f"lococo: tokens={self.budget.tokens}, but the memory holds {memory} entries; give one of them."
            )

    def targets(self, layer: int, layers: int, step: Step, real: list[int], bytes_per_entry: int) -> list[int]:
        """M for the batch rows that are over M + slack; the others keep what they have."""
        wanted = super().targets(layer, layers, step, real, bytes_per_entry)
        targets = [count if count <= most + self.slack else most for count, most in zip(real, wanted, strict=True)]
        if self.mode == "conv" and not self.budget.neutral:
            for count, target in zip(real, targets, strict=True):
                if target not in (count, self._slots):
                    raise BudgetError(
                        f"lococo: {self.budget} asks for {target} entries, but the artifact works for {self._slots} only; "
                        f"give tokens={self._slots} or no budget, or use mode='hh'."
                    )
        return targets

    def forced(self) -> tuple[int, int]:
        return 0, self.local

    def score(self, obs: Observation) -> torch.Tensor:
        return obs.mass()  # no column carries it over, so it covers this pass only

    def reduce(self, layer: CompressedLayer, obs: Observation, columns: dict[str, torch.Tensor]) -> list[Part] | None:
        if self.mode == "hh":
            return super().reduce(layer, obs, columns)
        if all(target >= real for target, real in zip(obs.targets, obs.real, strict=True)):
            return None
        self._check_heavy(obs)
        rank, index = self.rank(obs), columns["index"]
        if obs.valid is None:
            pieces = [self._compressed(obs.keys, obs.values, rank, index, obs.layer)]
        else:
            pieces = [self._row(obs, rank, index, row) for row in range(len(obs.real))]
        return [_joined(pieces)]

    def _row(self, obs: Observation, rank: torch.Tensor, index: torch.Tensor, row: int) -> Slots:
        """One batch row without its padding, which neither the convolution nor the softmax may see."""
        assert obs.valid is not None
        real, shape = obs.valid[row], (1, obs.keys.shape[1], obs.real[row])  # as many in every head
        keys, values = (x[row][real].view(*shape, x.shape[-1]) for x in (obs.keys, obs.values))
        rank, index = rank[row][real].view(shape), index[row][real].view(shape)
        if obs.targets[row] >= obs.real[row]:
            return keys, values, index
        return self._compressed(keys, values, rank, index, obs.layer)

    def _compressed(
        self, keys: torch.Tensor, values: torch.Tensor, rank: torch.Tensor, index: torch.Tensor, layer: int
    ) -> Slots:
        mixer = self._mixers[layer]
        assert isinstance(mixer, network.Mixer)
        keys, values, heavy = network.compress(keys, values, rank, mixer, self._heavy)
        return keys, values, F.pad(index.gather(2, heavy), (0, self._slots - self._heavy), value=MIXED)

    def _check_heavy(self, obs: Observation) -> None:
        if obs.protected is None:
            return
        for row, count in enumerate(obs.protected.sum(-1).amax(-1).tolist()):
            if count > self._heavy and obs.targets[row] < obs.real[row]:
                raise BudgetError(
                    f"lococo: {count} tokens are protected, but only {self._heavy} of the {self._slots} entries are kept as "
                    "they are. Protect less, or use mode='hh'."
                )

    def due(self, layer: CompressedLayer) -> bool:
        step = layer.cache.step
        assert step is not None
        most = min(self.budget.entries(tokens, layer.cache.entry_bytes) for tokens in step.real) + self.slack
        return layer.stored > most

    def decoded(self, layer: CompressedLayer, obs: Observation) -> None:
        part = layer.parts[-1]
        assert isinstance(part, DensePart)
        parts = self.reduce(layer, obs, {**part.columns, "index": obs.index})
        if parts is not None:
            layer.store(parts)


def _joined(pieces: list[Slots]) -> DensePart:
    """Rows of different lengths as one part; filler goes to the front, like padding."""
    most = max(keys.shape[2] for keys, _, _ in pieces)
    short = [most - keys.shape[2] for keys, _, _ in pieces]
    keys = torch.cat([F.pad(piece[0], (0, 0, room, 0)) for piece, room in zip(pieces, short, strict=True)])
    values = torch.cat([F.pad(piece[1], (0, 0, room, 0)) for piece, room in zip(pieces, short, strict=True)])
    index = torch.cat([F.pad(piece[2], (room, 0), value=MIXED) for piece, room in zip(pieces, short, strict=True)])
    columns = {"index": index}
    if any(short):
        first = torch.tensor(short, device=keys.device)[:, None, None]
        columns["valid"] = (torch.arange(most, device=keys.device) >= first).expand(index.shape)
    return DensePart(keys, values, columns)
