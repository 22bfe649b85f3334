"""The contract of methods that let the model repeat its prompt, and score entries by what the repetition looks at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch

from laconic import checks
from laconic.cache.contract import CacheMethod
from laconic.cache.full_attention import refuse_other_layers
from laconic.cache.observe import Observation
from laconic.errors import UnsupportedModelError
from laconic.ops.select import Selection, top_k, top_k_across_heads
from laconic.ops.strongest import strongest

if TYPE_CHECKING:
    from transformers import PreTrainedModel

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
    """

    over: Literal["model", "layer", "head"] = "model"
    sinks: int = 4
    instruction: str = INSTRUCTION
    ragged = True

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.one_of(self, "over", "model", "layer", "head")
        checks.whole(self, "sinks")
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
        length = prompt.shape[1]
        own = [length] * len(prompt) if valid is None else valid.sum(-1).tolist()
        asks = prompt.new_tensor(self._asks)
        return torch.stack([torch.cat([asks, row.roll(n)]) for row, n in zip(prompt, own, strict=True)])

    def forced(self) -> tuple[int, int]:
        return self.sinks, 0

    def columns(self, obs: Observation) -> dict[str, torch.Tensor]:
        return {"score": self.score(obs)}

    def score(self, obs: Observation) -> torch.Tensor:
        return obs.once("replay", lambda: self._score(obs))

    def replayed(self, obs: Observation, lse: torch.Tensor) -> torch.Tensor:
        """Scores of the T entries of this pass, fp32 [B, Hkv, T].

        Args:
            lse: of the repetition's queries, `Observation.pseudo_lse`; inf where a query has no say.
        """
        raise NotImplementedError(f"{type(self).__name__} must define replayed().")

    def spoken(self, obs: Observation) -> list[int]:
        """How many of each row's pseudo tokens are the instruction or its own tokens; what follows is filling."""
        valid = obs.step.valid
        own = [obs.step.length] * len(obs.keys) if valid is None else valid.sum(-1).tolist()
        return [len(self._asks) + n for n in own]

    def _score(self, obs: Observation) -> torch.Tensor:
        assert obs.pseudo_lse is not None
        lse = obs.pseudo_lse.clone()
        for row, count in enumerate(self.spoken(obs)):
            lse[row, :, count:] = float("inf")  # a short row's filling has no say
        new = self.replayed(obs, lse)
        past = obs.keys.shape[2] - obs.new
        if not past:
            return new
        before = obs.columns.get("score")  # of their own replay; what was stored while held had none
        return torch.cat([new.new_zeros(*new.shape[:2], past) if before is None else before, new], 2)

    def choose(self, rank: torch.Tensor, obs: Observation) -> Selection:
        if self.over == "head":
            return top_k(rank, obs.targets)
        return top_k_across_heads(rank, obs.targets, [0] * len(obs.targets))


def strongest_attention(obs: Observation, lse: torch.Tensor) -> torch.Tensor:
    """``max over the repetition's queries t and the group's heads of A[t, j]``, fp32 [B, Hkv, T]; A is the attention that
    has run, whose log-sum-exp is `lse` [B, H, P]."""
    assert obs.pseudo is not None
    keys = obs.keys[:, :, obs.keys.shape[2] - obs.new :]
    return strongest(obs.pseudo[0], keys, lse, obs.scale, softcap=obs.softcap)


@torch.no_grad()
def strongest_contribution(obs: Observation, lse: torch.Tensor, hidden: torch.Tensor, gram: torch.Tensor) -> torch.Tensor:
    """``max over t and h of A_h[t, j] ||W_O^h v_j|| / ||x_t||``, fp32 [B, Hkv, T]: how far an entry moves what reads it.

    Args:
        hidden: x, hidden states of the P queries, [B, P, hidden].
        gram: of the output projection's columns, see `Family.output_gram`, [H, Dv, Dv].
    """
    assert obs.pseudo is not None
    past, hkv = obs.keys.shape[2] - obs.new, obs.keys.shape[1]
    keys, values = obs.keys[:, :, past:], obs.values[:, :, past:].float()
    queries = obs.pseudo[0].unflatten(1, (hkv, -1))
    lse, gram = lse.unflatten(1, (hkv, -1)), gram.unflatten(0, (hkv, -1))
    weight = -torch.linalg.vector_norm(hidden, dim=-1, dtype=torch.float32).log()[:, None].expand(-1, hkv, -1)
    best = None
    for g in range(queries.shape[2]):  # each query head has an output projection of its own, so heads are maximised last
        size = (values @ gram[:, g] * values).sum(-1).clamp(min=0).sqrt()
        one = strongest(queries[:, :, g], keys, lse[:, :, g], obs.scale, weight, obs.softcap) * size
        best = one if best is None else torch.maximum(best, one)
    assert best is not None
    return best
