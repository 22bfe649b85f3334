"""KVzip: let the model repeat the context and keep the entries that it looks at meanwhile (arXiv 2505.23416)."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from laconic.cache.observe import Observation
from laconic.cache.replay import Glance, ReplayMethod, strongest_attention
from laconic.method import register


@register(
    "kvzip",
    site="cache",
    mechanism="eviction, ragged heads",
    source="arXiv 2505.23416",
    query_aware=False,
    inferred="the replay runs in the pass that reads the prompt; a replayed token sees its chunk of the prompt, the first "
    "tokens and what it has repeated of the chunk, where the release's sees the whole prompt and leaves the rest out of the "
    "scores; with a chunked prefill every chunk is repeated and cut before the next one is read, where the release keeps "
    "all chunks until the last",
)
@dataclass(kw_only=True)
class KVzip(ReplayMethod):
    """Run the prompt once more after itself, as if the model were repeating it, and keep what the repetition attends to.

    ``s(j) = max over the replayed tokens t and the query heads of a KV head of A[t, j]``, where A is the softmax over the
    context and the replay before t. An entry from which the context can be written down again can serve any question, so
    nothing depends on one. The replay leaves no trace: its entries are dropped, positions go on as if it had not been.
    Heads of all layers compete for one budget; a head whose entries nobody needs may keep nothing.

    The replay costs about one more prefill; `Stats.prefill_flops` has it. All entries of a pass are held until it has run
    through the model (`Stats.kv_bytes_waiting`). Read long prompts in chunks (``prefill_chunk_size``): each is repeated and
    cut before the next one.

    Args:
        over: who competes for the budget: ``"model"`` (all heads of all layers, as published), ``"layer"`` (heads of one
            layer) or ``"head"`` (the same number in every head).
        sinks: first tokens that always stay (4), up to half the budget. Protect a system prompt with ``protect="system"``.
        instruction: asks for the repetition, between the prompt and its replay; used where the session has a tokenizer.
        chunk: most tokens of the prompt that are repeated at once (1,024); None: all. Longer prompts are divided evenly.
    """

    def replayed(self, obs: Observation, glance: Glance) -> torch.Tensor:
        return strongest_attention(obs, glance)
