"""KVzip: let the model repeat the context and keep the entries that it looks at meanwhile (arXiv 2505.23416)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch

from laconic import checks
from laconic.cache.contract import CacheMethod
from laconic.cache.full_attention import refuse_other_layers
from laconic.cache.observe import Observation
from laconic.errors import UnsupportedModelError
from laconic.method import register
from laconic.ops.select import Selection, top_k, top_k_across_heads
from laconic.ops.strongest import strongest

if TYPE_CHECKING:
    from transformers import PreTrainedModel

INSTRUCTION = "\n\nRepeat the previous context exactly.\n\n"


@register(
    "kvzip",
    site="cache",
    mechanism="eviction, ragged heads",
    source="arXiv 2505.23416",
    query_aware=False,
    inferred="the replay runs in the pass that reads the prompt; a replayed token's softmax goes over all that is stored, "
    "where the release has the template, one chunk and the replay; with a chunked prefill every chunk is repeated and cut "
    "before the next one is read, where the release keeps all chunks until the last",
)
@dataclass(kw_only=True)
class KVzip(CacheMethod):
    """Run the prompt once more after itself, as if the model were repeating it, and keep what the repetition attends to.

    ``s(j) = max over the replayed tokens t and the query heads of a KV head of A[t, j]``, where A is the softmax over the
    context and the replay before t. An entry from which the context can be written down again can serve any question, so
    nothing depends on one. The replay leaves no trace: its entries are dropped, positions go on as if it had not been.
    Heads of all layers compete for one budget; a head whose entries nobody needs may keep nothing.

    The replay costs about one more prefill, and its attention goes over twice the tokens; `Stats.prefill_flops` has it. All
    entries of a pass are held until it has run through the model. Read long prompts in chunks (``prefill_chunk_size``):
    each is repeated and cut before the next one.

    Args:
        over: who competes for the budget: ``"model"`` (all heads of all layers, as published), ``"layer"`` (heads of one
            layer) or ``"head"`` (the same number in every head).
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
        self._replayed: list[int] = []

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
                "kvzip repeats token ids, and this call brings embeddings (an image, or inputs_embeds); use it on text."
            )
        length = prompt.shape[1]
        own = [length] * len(prompt) if valid is None else valid.sum(-1).tolist()
        asks = prompt.new_tensor(self._asks)
        self._replayed = [len(asks) + n for n in own]
        return torch.stack([torch.cat([asks, row.roll(n)]) for row, n in zip(prompt, own, strict=True)])

    def forced(self) -> tuple[int, int]:
        return self.sinks, 0

    def columns(self, obs: Observation) -> dict[str, torch.Tensor]:
        return {"score": self.score(obs)}

    def score(self, obs: Observation) -> torch.Tensor:
        return obs.once("kvzip", lambda: self._score(obs))

    def _score(self, obs: Observation) -> torch.Tensor:
        assert obs.pseudo is not None and obs.pseudo_lse is not None
        lse = obs.pseudo_lse.clone()
        for row, count in enumerate(self._replayed):
            lse[row, :, count:] = float("inf")  # a short row's filling has no say
        past = obs.keys.shape[2] - obs.new
        new = strongest(obs.pseudo[0], obs.keys[:, :, past:], lse, obs.scale, softcap=obs.softcap)
        if not past:
            return new
        before = obs.columns.get("score")  # of their own replay; what was stored while held had none
        return torch.cat([new.new_zeros(*new.shape[:2], past) if before is None else before, new], 2)

    def choose(self, rank: torch.Tensor, obs: Observation) -> Selection:
        if self.over == "head":
            return top_k(rank, obs.targets)
        return top_k_across_heads(rank, obs.targets, [0] * len(obs.targets))
