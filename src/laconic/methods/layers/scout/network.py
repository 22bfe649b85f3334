"""SCOUT's model: a causal language model of layers with a windowed mixer and checkpoint attention."""

from __future__ import annotations

from typing import Any, cast

import torch
from huggingface_hub.dataclasses import strict
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import GenerationMixin, LlamaConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast
from transformers.models.llama.modeling_llama import LlamaMLP, LlamaRMSNorm, LlamaRotaryEmbedding, apply_rotary_pos_emb

from laconic.layers.entries import NOWHERE, Entries, weighed
from laconic.methods.layers.scout.cache import ScoutCache, checkpoints


@strict
class ScoutConfig(LlamaConfig):
    """Sizes of a SCOUT model, under the names that a Llama's have, with the two of its own."""

    model_type = "scout"
    every: int = 10
    window: int = 1024


class Attention(nn.Module):
    """Projections and rotary positions of a sublayer; a subclass says which entries a token sees."""

    def __init__(self, config: ScoutConfig):
        super().__init__()
        width, heads = config.hidden_size, config.num_attention_heads
        self.heads, self.size, self.every, self.window = heads, width // heads, config.every, config.window
        self.q_proj, self.k_proj, self.v_proj, self.o_proj = (nn.Linear(width, width, bias=False) for _ in range(4))

    def forward(
        self, x: Tensor, phases: tuple[Tensor, Tensor], places: Tensor, past: Entries | None
    ) -> tuple[Tensor, Entries]:
        """x [B, T, d] at positions `places` [B, T], after what was stored -> output [B, T, d], and the new entries."""
        q, k, v = (
            project(x).unflatten(-1, (self.heads, self.size)).transpose(1, 2)
            for project in (self.q_proj, self.k_proj, self.v_proj)
        )
        q, k = apply_rotary_pos_emb(q, k, *phases)
        q = q * self.size**-0.5
        new = Entries(k, v, places)
        out: Tensor = self.o_proj(self.attend(q, new, past).transpose(1, 2).flatten(2))
        return out, new

    def attend(self, q: Tensor, new: Entries, past: Entries | None) -> Tensor:
        """Queries [B, H, T, D] of the new entries -> [B, H, T, D]."""
        raise NotImplementedError


class WindowAttention(Attention):
    """The local mixer: each token sees the last `window` tokens, itself included."""

    def attend(self, q: Tensor, new: Entries, past: Entries | None) -> Tensor:
        every = new if past is None else past.followed_by(new)
        before, found = len(every) - len(new), []
        for start in range(0, len(new), self.window):  # blocks of queries, so that what is far away costs nothing
            stop = min(start + self.window, len(new))
            first = max(0, before + start - self.window + 1)
            part = every.between(first, before + stop)
            apart = new.places[:, start:stop, None] - part.places[:, None]
            seen = (apart >= 0) & (apart < self.window) & (part.places[:, None] >= 0)
            found.append(weighed(q[:, :, start:stop] @ part.keys.transpose(2, 3), seen[:, None]) @ part.values)
        return torch.cat(found, 2)


class CheckpointAttention(Attention):
    """Global attention: each token sees the checkpoints before it, and itself, in one softmax."""

    def attend(self, q: Tensor, new: Entries, past: Entries | None) -> Tensor:
        own = (q * new.keys).sum(-1, keepdim=True)
        fresh = checkpoints(new, self.every)
        among = fresh if past is None else past.followed_by(fresh)
        if among is None:
            return new.values
        seen = (among.places[:, None] < new.places[..., None]) & (among.places[:, None] >= 0)
        always = torch.ones_like(seen[..., :1])
        scores = torch.cat([own, q @ among.keys.transpose(2, 3)], -1)
        weights = weighed(scores, torch.cat([always, seen], -1)[:, None])
        return weights[..., :1] * new.values + weights[..., 1:] @ among.values


class ScoutLayer(nn.Module):
    """Mixer, MLP, checkpoint attention, MLP, each after a norm and added to what it read."""

    def __init__(self, config: ScoutConfig):
        super().__init__()
        self.norms = nn.ModuleList(LlamaRMSNorm(config.hidden_size, config.rms_norm_eps) for _ in range(4))
        self.mixer, self.checkpoints = WindowAttention(config), CheckpointAttention(config)
        self.mlps = nn.ModuleList(LlamaMLP(config) for _ in range(2))

    def forward(
        self, x: Tensor, phases: tuple[Tensor, Tensor], places: Tensor, local: Entries | None, checkpoints: Entries | None
    ) -> tuple[Tensor, Entries, Entries]:
        """-> x [B, T, d], and the new entries of both attentions."""
        mixed, near = self.mixer(self.norms[0](x), phases, places, local)
        x = x + mixed
        x = x + self.mlps[0](self.norms[1](x))
        found, far = self.checkpoints(self.norms[2](x), phases, places, checkpoints)
        x = x + found
        return x + self.mlps[1](self.norms[3](x)), near, far


class ScoutForCausalLM(PreTrainedModel, GenerationMixin):
    """A decoder of `ScoutLayer`s with its head; generating, saving and loading are transformers' own."""

    config_class = ScoutConfig
    _tied_weights_keys = {"lm_head.weight": "embed_tokens.weight"}

    def __init__(self, config: ScoutConfig):
        super().__init__(config)
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(ScoutLayer(config) for _ in range(config.num_hidden_layers))
        self.norm = LlamaRMSNorm(config.hidden_size, config.rms_norm_eps)
        self.rotary_emb = LlamaRotaryEmbedding(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.embed_tokens

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        past_key_values: Any = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        **unused: Any,
    ) -> CausalLMOutputWithPast:
        """Read token ids [B, T] after what the cache has seen.

        Args:
            attention_mask: [B, seen + T], 0 at padding, which is on the left. Positions and checkpoints count from the first
                real token, so that a padded row is as if it were alone.
            past_key_values: a `ScoutCache`; an empty cache of another kind is taken for a new one.
            labels: [B, T], -100 where there is no loss.

        Raises:
            ValueError: a cache of another kind that has seen tokens, or a mask of another length.
        """
        cache = self._own(past_key_values, use_cache)
        seen, (rows, new) = 0 if cache is None else cache.seen, input_ids.shape
        real = input_ids.new_ones(rows, seen + new) if attention_mask is None else attention_mask.long()
        if real.shape != (rows, seen + new):
            raise ValueError(f"attention_mask of {tuple(real.shape)}: {rows} rows of {seen + new} tokens were expected.")
        places = (real.cumsum(1) - 1).masked_fill(real == 0, NOWHERE)[:, seen:]
        x = self.embed_tokens(input_ids)
        phases = self.rotary_emb(x, places.clamp(min=0))
        for number, layer in enumerate(self.layers):
            past = (None, None) if cache is None else (cache.local[number], cache.checkpoints[number])
            x, near, far = layer(x, phases, places, *past)
            if cache is not None:
                cache.store(number, near, far, self.config.window, self.config.every)
        if cache is not None:
            cache.seen += new
        logits = self.lm_head(self.norm(x))
        loss = None if labels is None else cross_entropy(logits[:, :-1].flatten(0, 1).float(), labels[:, 1:].flatten())
        return CausalLMOutputWithPast(loss=cast(Any, loss), logits=logits, past_key_values=cache)

    def _own(self, given: Any, use_cache: bool | None) -> ScoutCache | None:
        if isinstance(given, ScoutCache):
            return given
        if given is not None and given.get_seq_length():
            raise ValueError(f"{type(given).__name__} holds tokens that this model cannot use; give a ScoutCache, or none.")
        return ScoutCache(len(self.layers)) if use_cache or given is not None else None
