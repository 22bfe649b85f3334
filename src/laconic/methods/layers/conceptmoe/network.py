"""ConceptMoE's model: tokens, concepts of them in a mixture of experts, and tokens again."""

from __future__ import annotations

from typing import Any, cast

import torch
from huggingface_hub.dataclasses import strict
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import GenerationMixin, MixtralConfig
from transformers.modeling_outputs import CausalLMOutputWithPast
from transformers.models.llama.modeling_llama import LlamaMLP, LlamaRMSNorm, LlamaRotaryEmbedding, apply_rotary_pos_emb
from transformers.models.mixtral.modeling_mixtral import (
    MixtralExperts,
    MixtralPreTrainedModel,
    MixtralTopKRouter,
    load_balancing_loss_func,
)

from laconic.layers.entries import NOWHERE, Entries, in_front, weighed
from laconic.methods.layers.conceptmoe.cache import ConceptCache
from laconic.methods.layers.conceptmoe.chunks import boundary_probability, certainty, ratio_loss, sharpened, smoothed


@strict
class ConceptConfig(MixtralConfig):
    """Sizes of a ConceptMoE model, under the names that a Mixtral's have, with those of its own. `num_hidden_layers` counts
    all layers, the outer ones included."""

    model_type = "conceptmoe"
    mlp_bias: bool = False
    ratio: float = 2.0
    outer: int = 2
    ratio_weight: float = 0.03

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        if self.num_hidden_layers <= 2 * self.outer:
            raise ValueError(
                f"num_hidden_layers={self.num_hidden_layers} must be above {2 * self.outer}, the outer layers on both sides."
            )


class Attention(nn.Module):
    """Causal attention over rotary positions. With `joint`, queries, keys and values have a second part from the concept of
    each token, which begins at zero."""

    def __init__(self, config: ConceptConfig, joint: bool):
        super().__init__()
        width, self.heads = config.hidden_size, config.num_attention_heads
        self.size = width // self.heads
        self.q_proj, self.k_proj, self.v_proj, self.o_proj = (nn.Linear(width, width, bias=False) for _ in range(4))
        self.joint = nn.Linear(width, 3 * width, bias=False) if joint else None

    def forward(
        self, x: Tensor, phases: tuple[Tensor, Tensor], places: Tensor, past: Entries | None, concept: Tensor | None
    ) -> tuple[Tensor, Entries]:
        """x [B, T, d] at positions `places` [B, T], after what was stored -> output [B, T, d], and the new entries."""
        parts = [project(x) for project in (self.q_proj, self.k_proj, self.v_proj)]
        if self.joint is not None:
            parts = [own + added for own, added in zip(parts, self.joint(concept).chunk(3, -1), strict=True)]
        q, k, v = (part.unflatten(-1, (self.heads, self.size)).transpose(1, 2) for part in parts)
        q, k = apply_rotary_pos_emb(q, k, *phases)
        new = Entries(k, v, places)
        every = new if past is None else past.followed_by(new)
        seen = (every.places[:, None] <= places[..., None]) & (every.places[:, None] >= 0)
        weights = weighed(q @ every.keys.transpose(2, 3) * self.size**-0.5, seen[:, None])
        return self.o_proj((weights @ every.values).transpose(1, 2).flatten(2)), new


class Mixture(nn.Module):
    """Mixtral's router and experts; the router's logits are returned, too, for the loss that balances them."""

    def __init__(self, config: ConceptConfig):
        super().__init__()
        self.gate, self.experts = MixtralTopKRouter(config), MixtralExperts(config)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x [B, m, d] -> [B, m, d], and logits [B * m, E]."""
        logits, weights, chosen = self.gate(x)
        return self.experts(x.flatten(0, 1), chosen, weights).view_as(x), logits


class Layer(nn.Module):
    """Attention and an MLP, or a mixture of them for concepts, each after a norm and added to what it read."""

    def __init__(self, config: ConceptConfig, mixture: bool = False, joint: bool = False):
        super().__init__()
        self.norms = nn.ModuleList(LlamaRMSNorm(config.hidden_size, config.rms_norm_eps) for _ in range(2))
        self.attention = Attention(config, joint)
        self.mlp = Mixture(config) if mixture else LlamaMLP(config)

    def forward(
        self, x: Tensor, phases: Any, places: Tensor, past: Entries | None, concept: Tensor | None = None
    ) -> tuple[Tensor, Entries, Tensor | None]:
        """-> x [B, T, d], the new entries, and the router's logits."""
        found, new = self.attention(self.norms[0](x), phases, places, past, concept)
        x = x + found
        mixed = self.mlp(self.norms[1](x))
        out, logits = mixed if isinstance(mixed, tuple) else (mixed, None)
        return x + out, new, logits


class ConceptForCausalLM(MixtralPreTrainedModel, GenerationMixin):
    """Encoder layers, boundaries, concept layers and decoder layers; generating, saving and loading are transformers' own.

    Attributes:
        told: of the last pass: probabilities and boundaries of its real tokens, [n] each.
    """

    config_class = ConceptConfig
    _tied_weights_keys = {"lm_head.weight": "embed_tokens.weight"}

    def __init__(self, config: ConceptConfig):
        super().__init__(config)
        width, self.outer = config.hidden_size, config.outer
        self.embed_tokens = nn.Embedding(config.vocab_size, width)
        inner = config.num_hidden_layers - 2 * self.outer
        self.encoder = nn.ModuleList(Layer(config) for _ in range(self.outer))
        self.middle = nn.ModuleList(Layer(config, mixture=True) for _ in range(inner))
        self.decoder = nn.ModuleList(Layer(config, joint=True) for _ in range(self.outer))
        self.boundary_q, self.boundary_k = (nn.Linear(width, width, bias=False) for _ in range(2))
        self.norm = LlamaRMSNorm(width, config.rms_norm_eps)
        self.rotary_emb = LlamaRotaryEmbedding(cast(Any, config))
        self.lm_head = nn.Linear(width, config.vocab_size, bias=False)
        self.told: tuple[Tensor, Tensor] | None = None
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, Attention) and module.joint is not None:
            nn.init.zeros_(module.joint.weight)

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
        """Read token ids [B, T] after what the cache has seen. In training boundaries are drawn, else p >= 0.5 is one.

        Args:
            attention_mask: [B, seen + T], 0 at padding, which is on the left.
            past_key_values: a `ConceptCache`; an empty cache of another kind is taken for a new one.
            labels: [B, T], -100 where there is no loss. The loss is that on tokens, on the ratio, and on balanced experts.

        Raises:
            ValueError: a cache of another kind that has seen tokens, or a mask of another length.
        """
        cache = _own(past_key_values, len(self.encoder) + len(self.middle) + len(self.decoder))
        (rows, new), seen = input_ids.shape, cache.seen
        real = input_ids.new_ones(rows, seen + new) if attention_mask is None else attention_mask.long()
        if real.shape != (rows, seen + new):
            raise ValueError(f"attention_mask of {tuple(real.shape)}: {rows} rows of {seen + new} tokens were expected.")
        places = (real.cumsum(1) - 1).masked_fill(real == 0, NOWHERE)[:, seen:]
        x = self._through(self.encoder, self.embed_tokens(input_ids), places, cache, 0)[0]
        p, boundary = self._boundaries(x, places, cache)
        concept, routed = self._concepts(x, p, boundary, cache)
        x = x + concept * certainty(p, boundary)[..., None]
        x = self._through(self.decoder, x, places, cache, self.outer + len(self.middle), concept)[0]
        cache.seen += new
        logits = self.lm_head(self.norm(x))
        self.told = p[places >= 0].detach(), boundary[places >= 0]
        loss = None if labels is None else self._loss(logits, labels, p[places >= 0], boundary[places >= 0], routed)
        kept = cache if use_cache or past_key_values is not None else None
        return CausalLMOutputWithPast(loss=cast(Any, loss), logits=logits, past_key_values=kept)

    def _through(
        self, layers: Any, x: Tensor, places: Tensor, cache: ConceptCache, first: int, concept: Tensor | None = None
    ) -> tuple[Tensor, list[Tensor]]:
        """x [B, T, d] after these layers, of which `first` is the number of the first, and what their routers said."""
        phases, routed = self.rotary_emb(x, places.clamp(min=0)), []
        for number, layer in enumerate(layers, first):
            x, new, logits = layer(x, phases, places, cache.parts[number], concept)
            cache.store(number, new)
            if logits is not None:
                routed.append(logits.view(*x.shape[:2], -1)[places >= 0])
        return x, routed

    def _boundaries(self, x: Tensor, places: Tensor, cache: ConceptCache) -> tuple[Tensor, Tensor]:
        """Probabilities [B, T], 1 for the first token of a row, and boundaries [B, T], none of which is padding."""
        keys = self.boundary_k(x)
        before = torch.zeros_like(keys[:, 0]) if cache.key is None else cache.key
        p = boundary_probability(self.boundary_q(x), torch.cat([before[:, None], keys[:, :-1]], 1))
        cache.key = keys[:, -1]
        p = torch.ones_like(p) if self.config.ratio == 1 else p.masked_fill(places == 0, 1.0)
        boundary = torch.bernoulli(sharpened(p.detach())).bool() if self.training else p >= 0.5
        return p, boundary & (places >= 0)

    def _concepts(self, x: Tensor, p: Tensor, boundary: Tensor, cache: ConceptCache) -> tuple[Tensor, list[Tensor]]:
        """The concept that each token reads, [B, T, d]: smoothed up to the last boundary; and what routers said."""
        before = torch.zeros_like(x[:, 0]) if cache.smooth is None else cache.smooth
        known = boundary.new_zeros(len(x), dtype=torch.long) if cache.concepts is None else cache.concepts
        routed: list[Tensor] = []
        order, every = in_front(boundary), before[:, None]
        if order.shape[1]:
            real = boundary.gather(1, order)
            places = (known[:, None] + real.cumsum(1) - 1).masked_fill(~real, NOWHERE)
            chosen = x.gather(1, order[..., None].expand(-1, -1, x.shape[2]))
            found, routed = self._through(self.middle, chosen, places, cache, self.outer)
            e = smoothed(found, p.gather(1, order) * real, before)
            every = torch.cat([every, e], 1)
        cache.smooth, cache.concepts = every[:, -1], known + boundary.sum(1)
        return every.gather(1, boundary.cumsum(1)[..., None].expand_as(x)), routed

    def _loss(self, logits: Tensor, labels: Tensor, p: Tensor, boundary: Tensor, routed: list[Tensor]) -> Tensor:
        config, loss = self.config, cross_entropy(logits[:, :-1].flatten(0, 1).float(), labels[:, 1:].flatten())
        if config.ratio > 1:
            loss = loss + config.ratio_weight * ratio_loss(p, boundary, config.ratio)
        balance = load_balancing_loss_func(cast(Any, tuple(routed)), config.num_local_experts, config.num_experts_per_tok)
        return loss + config.router_aux_loss_coef * balance


def _own(given: Any, layers: int) -> ConceptCache:
    if isinstance(given, ConceptCache):
        return given
    if given is not None and given.get_seq_length():
        raise ValueError(f"{type(given).__name__} holds tokens that this model cannot use; give a ConceptCache, or none.")
    return ConceptCache(layers)
