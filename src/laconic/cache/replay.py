"""The contract of methods that let the model repeat its prompt, and score entries by what the repetition looks at."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

import torch

from laconic import checks
from laconic.cache.contract import CacheMethod
from laconic.cache.full_attention import refuse_other_layers
from laconic.cache.observe import Observation
from laconic.errors import UnsupportedModelError
from laconic.ops.segments import Segment, Segments
from laconic.ops.select import Selection, top_k, top_k_across_heads
from laconic.ops.strongest import strongest

if TYPE_CHECKING:
    from transformers import PreTrainedModel

LEAD = 32
"""Tokens before a chunk that its repetition sees, too."""
INSTRUCTION = "\n\nRepeat the previous context exactly.\n\n"


@dataclass(kw_only=True)
class ReplayMethod(CacheMethod):
    """Run the prompt once more after itself, as if the model were repeating it, and keep what the repetition needs.

    The repetition runs as pseudo tokens of the pass that reads the prompt and leaves no trace: its entries are dropped, and
    positions go on as if it had not been. A subclass gives `replayed`, the scores of the pass's own entries; entries of
    earlier passes keep the score of their own repetition. Nothing depends on a question.

    Args:
        over: who competes for the budget: ``"model"`` (all heads of all layers), ``"layer"`` (heads of one layer) or
            ``"head"`` (the same number in every head).
        sinks: first tokens that always stay (4), up to half the budget. Protect a system prompt with ``protect="system"``.
        instruction: asks for the repetition, between the prompt and its replay; used where the session has a tokenizer.
        chunk: most tokens of the prompt that are repeated at once (1,024); None: all. A longer prompt is divided evenly,
            and a repeated token sees, of the prompt, its own chunk and the sinks, so that a repetition costs the square of
            a chunk, not of the prompt.
    """

    over: Literal["model", "layer", "head"] = "model"
    sinks: int = 4
    instruction: str = INSTRUCTION
    chunk: int | None = 1024
    ragged = True

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.one_of(self, "over", "model", "layer", "head")
        checks.whole(self, "sinks")
        if self.chunk is not None:
            checks.whole(self, "chunk", least=1)
        self._asks: list[int] = []

    def attach(self, model: PreTrainedModel) -> None:
        refuse_other_layers(self.name, model)
        self._asks = []  # an earlier session's tokenizer may be another one

    def read_with(self, tokenizer: Any) -> None:
        self._asks = list(tokenizer(self.instruction, add_special_tokens=False)["input_ids"]) if self.instruction else []

    @property
    def cuts_late(self) -> bool:
        return self.over == "model"

    def pseudo_offset(self) -> int:
        return 0

    def pseudo(self, prompt: torch.Tensor, valid: torch.Tensor | None) -> torch.Tensor:
        """The instruction and each row's own tokens again; a short row is filled up at its end, where nothing that counts
        comes after."""
        if prompt.ndim == 3:
            raise UnsupportedModelError(
                f"{self.name} repeats token ids, and this call brings embeddings (an image, or inputs_embeds); use it on "
                "text."
            )
        own = _own(len(prompt), prompt.shape[1], valid)
        asks = prompt.new_tensor(self._asks)
        return torch.stack([torch.cat([asks, row.roll(n)]) for row, n in zip(prompt, own, strict=True)])

    def segments(self, prompt: torch.Tensor, valid: torch.Tensor | None) -> Segments | None:
        length = prompt.shape[1]
        if self.chunk is None or length <= self.chunk:
            return None
        own = _own(len(prompt), length, valid)
        # a row of nothing but padding has one piece, too, so that each of its pseudo tokens has a segment
        return [self._divided(length, n, max(1, math.ceil(n / self.chunk))) for n in own]

    def _divided(self, length: int, own: int, pieces: int) -> list[Segment]:
        """The repetition of a row's last `own` of `length` tokens.

        Each segment sees a little of what comes before its chunk, as prompt and as repetition: the first tokens of a chunk
        alone do not say where in the prompt they are. The last one has the filling of a short row, too."""
        asks, start = len(self._asks), length - own
        edges = [own * i // pieces for i in range(pieces + 1)]
        made = []
        for i, (first, last) in enumerate(pairwise(edges)):
            lead = max(0, first - LEAD)
            sinks = min(self.sinks, lead)
            prompt = ((start, start + sinks), (start + lead, start + last))
            begins, ends = asks + first if i else 0, asks + last if i + 1 < pieces else asks + length
            said = ((0, asks), (asks + lead, asks + first)) if i else ()
            made.append(
                Segment((begins, ends), tuple(r for r in prompt if r[0] < r[1]), tuple(r for r in said if r[0] < r[1]))
            )
        return made

    def forced(self) -> tuple[int, int]:
        return self.sinks, 0

    def columns(self, obs: Observation) -> dict[str, torch.Tensor]:
        return {"score": self.score(obs)}

    def score(self, obs: Observation) -> torch.Tensor:
        return obs.once("replay", lambda: self._score(obs))

    def replayed(self, obs: Observation, glance: Glance) -> torch.Tensor:
        """Scores that entries get from some of the repetition's queries, fp32 [rows, Hkv, m]; the largest count."""
        raise NotImplementedError(f"{type(self).__name__} must define replayed().")

    def spoken(self, obs: Observation) -> list[int]:
        """How many of each row's pseudo tokens are the instruction or its own tokens; what follows is filling."""
        return [len(self._asks) + n for n in _own(len(obs.keys), obs.step.length, obs.step.valid)]

    def _score(self, obs: Observation) -> torch.Tensor:
        assert obs.pseudo_lse is not None
        lse = obs.pseudo_lse.clone()
        for row, count in enumerate(self.spoken(obs)):
            lse[row, :, count:] = float("inf")  # a short row's filling has no say
        n = obs.keys.shape[2]
        past = n - obs.new
        if obs.step.segments is not None:
            new = torch.zeros(*obs.keys.shape[:2], obs.new, device=obs.keys.device)
            for row, segments in enumerate(obs.step.segments):
                for segment in segments:
                    for start, stop in segment.prompt:
                        glance = Glance(slice(row, row + 1), slice(*segment.own), slice(past + start, past + stop), lse)
                        seen = new[row : row + 1, :, start:stop]
                        torch.maximum(seen, self.replayed(obs, glance), out=seen)
        else:
            new = self.replayed(obs, Glance(slice(None), slice(None), slice(past, n), lse))
        if not past:
            return new
        before = obs.columns.get("score")  # of their own replay; what was stored while held had none
        return torch.cat([new.new_zeros(*new.shape[:2], past) if before is None else before, new], 2)

    def choose(self, rank: torch.Tensor, obs: Observation) -> Selection:
        if self.over == "head":
            return top_k(rank, obs.targets)
        return top_k_across_heads(rank, obs.targets, [0] * len(obs.targets))


def _own(rows: int, length: int, valid: torch.Tensor | None) -> list[int]:
    """How many of the `length` tokens of each of `rows` batch rows are real; `valid` [rows, length], None: all."""
    return [length] * rows if valid is None else valid.sum(-1).tolist()


@dataclass(frozen=True)
class Glance:
    """Some of the repetition's queries, and the entries that they see.

    Attributes:
        rows: of the batch. `queries`: among the pseudo tokens. `entries`: among all entries of the layer.
        lse: of all pseudo queries, [B, H, P]; inf where a query has no say.
    """

    rows: slice
    queries: slice
    entries: slice
    lse: torch.Tensor


def strongest_attention(obs: Observation, glance: Glance) -> torch.Tensor:
    """``max over the queries t and the group's heads of A[t, j]``, fp32 [rows, Hkv, m]; A is the attention that has run."""
    assert obs.pseudo is not None
    rows, at = glance.rows, glance.queries
    keys, queries = obs.keys[rows, :, glance.entries], obs.pseudo[0][rows, :, at]
    return strongest(queries, keys, glance.lse[rows, :, at], obs.scale, softcap=obs.softcap)


@torch.no_grad()
def strongest_contribution(obs: Observation, glance: Glance, hidden: torch.Tensor, gram: torch.Tensor) -> torch.Tensor:
    """``max over t and h of A_h[t, j] ||W_O^h v_j|| / ||x_t||``, fp32 [rows, Hkv, m]: how far an entry moves what reads it.

    Args:
        hidden: x, hidden states of the P pseudo tokens, [B, P, hidden].
        gram: of the output projection's columns, see `Family.output_gram`, [H, Dv, Dv].
    """
    assert obs.pseudo is not None
    rows, at, hkv = glance.rows, glance.queries, obs.keys.shape[1]
    keys, values = obs.keys[rows, :, glance.entries], obs.values[rows, :, glance.entries].float()
    queries = obs.pseudo[0][rows, :, at].unflatten(1, (hkv, -1))
    lse, gram = glance.lse[rows, :, at].unflatten(1, (hkv, -1)), gram.unflatten(0, (hkv, -1))
    length = torch.linalg.vector_norm(hidden[rows, at], dim=-1, dtype=torch.float32)
    weight = -length.log()[:, None].expand(-1, hkv, -1)
    best = None
    for g in range(queries.shape[2]):  # each query head has an output projection of its own, so heads are maximised last
        size = (values @ gram[:, g] * values).sum(-1).clamp(min=0).sqrt()
        one = strongest(queries[:, :, g], keys, lse[:, :, g], obs.scale, weight, obs.softcap) * size
        best = one if best is None else torch.maximum(best, one)
    assert best is not None
    return best
