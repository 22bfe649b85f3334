"""VTrans: widths, heads and neurons that drown in their own noise are removed (arXiv 2406.05276)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from transformers import PreTrainedModel

from laconic.errors import ArtifactError, BudgetError
from laconic.families import family_of
from laconic.method import register
from laconic.methods.weights.vtrans.network import Gates, Sizes
from laconic.weights.edit import FittedEdit
from laconic.weights.resize import channels, resize, scaled


@register(
    "vtrans",
    site="weights",
    mechanism="structured pruning",
    source="arXiv 2406.05276",
    query_aware=False,
    training="trained",
    inferred="gates only, the weights stay (Faster-VTrans); equal numbers of heads and neurons in all layers, a width that "
    "the query heads divide",
)
@dataclass(kw_only=True)
class VTrans(FittedEdit):
    """Remove residual channels, KV heads with their query heads, and neurons whose trained gates are more noise than signal.

    Gates ``z = mu + sigma * eps`` are trained beside the frozen model, under a constraint on the parameters that stay. What
    stays is multiplied by mu and sliced: a smaller dense model of the same class. The share of the layers' parameters that
    stays belongs to the artifact: leave ``keep`` out, or give the same; 1.0 changes nothing and needs no artifact.

    Args:
        artifact: what `laconic fit vtrans` wrote.
    """

    default_keep: ClassVar[float | None] = None
    fixed_budget: ClassVar[bool] = True
    saves: ClassVar[str] = "bytes, FLOPs and time: a smaller dense model, which also stores fewer keys and values"

    def prepare(self, model: PreTrainedModel) -> None:
        found, sizes = self.found(model), Sizes.of(model)
        target = 1 - found.data["sparsity"]
        if self.keep is not None and abs(self.keep - target) > 0.005:
            raise BudgetError(f"vtrans: keep={self.keep}, but the artifact keeps {target:g}: leave keep out, or give it.")
        self._gates = found.restore(Gates(sizes))
        self._kept = kept(self._gates, found.data["sparsity"])
        reached = 1 - self._left() / sizes.dense
        if abs(reached - found.data["sparsity"]) > 0.02:
            raise ArtifactError(
                f"vtrans: with equal sizes in all layers its gates leave out {reached:.3f} of the parameters, and "
                f"{found.data['sparsity']:g} was asked for; train the gates longer, or for another share."
            )

    def _left(self) -> int:
        counts = (int(self._kept[name].sum(-1).flatten()[0]) for name in ("width", "heads", "neurons"))
        return int(self._gates.sizes.parameters(*counts))

    def edit(self, model: PreTrainedModel) -> dict[str, Any]:
        sizes = self._gates.sizes
        sliced(model, self._gates, self._kept)
        counts = {name: int(self._kept[name].sum(-1).flatten()[0]) for name in self._kept}
        return {**counts, "sparsity of layers": 1 - self._left() / sizes.dense}


@torch.no_grad()
def threshold(gates: Gates, sparsity: float) -> float:
    """The ``log_alpha`` below which units stay so that this share goes; near 0 where the gates have separated."""
    low, high = -40.0, 40.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if gates.hard_sparsity(middle) > sparsity else (low, middle)
    return high


@torch.no_grad()
def kept(gates: Gates, sparsity: float) -> dict[str, Tensor]:
    """Which units stay, bool by name, so that stock classes can hold them: equal numbers in all layers, a width that the
    query heads divide, and parameters as close to the target as neurons allow.

    Of each kind the units of lowest ``log_alpha`` stay. Width and heads keep as many as the threshold says (heads on average
    over layers); the number of neurons makes up for rounding.
    """
    sizes, most = gates.sizes, threshold(gates, sparsity)
    heads = max(1, round(float((gates.log_alpha("heads") < most).sum(-1).double().mean())))
    step = heads * sizes.queries
    width = max(1, round(int((gates.log_alpha("width") < most).sum()) / step)) * step
    width = min(width, sizes.width // step * step)
    rest = sizes.dense * (1 - sparsity) / sizes.layers - sizes.parameters(width, heads, 0) / sizes.layers
    neurons = min(sizes.neurons, max(1, round(rest / (3 * width))))
    counts = {"width": width, "heads": heads, "neurons": neurons}
    return {name: _lowest(gates.log_alpha(name), count) for name, count in counts.items()}


def _lowest(scores: Tensor, count: int) -> Tensor:
    return torch.zeros_like(scores, dtype=torch.bool).scatter_(-1, scores.argsort(dim=-1, stable=True)[..., :count], True)


def sliced(model: PreTrainedModel, gates: Gates, kept: dict[str, Tensor]) -> None:
    """Multiply what stays by mu, and slice every matrix, norm and embedding to it."""
    sizes, stack = gates.sizes, family_of(model).stack(model)
    body: Any = stack
    wide = kept["width"].nonzero()[:, 0]
    mu = {name: gates.mu[name].detach() for name in kept}
    head: Any = model.get_output_embeddings()
    tied = head is not None and head.weight is body.embed_tokens.weight
    if head is not None and not tied:
        resize(head, columns=wide)
    body.embed_tokens.weight = scaled(body.embed_tokens.weight, columns=mu["width"])
    resize(body.embed_tokens, columns=wide)
    for number, layer in enumerate(body.layers):
        attention, mlp = layer.self_attn, layer.mlp
        own = kept["heads"][number].nonzero()[:, 0]
        keys, queries = channels(own, sizes.head_dim), channels(own, sizes.queries * sizes.head_dim)
        neurons = kept["neurons"][number].nonzero()[:, 0]
        by_head = mu["heads"][number].repeat_interleave(sizes.queries * sizes.head_dim)
        attention.o_proj.weight = scaled(attention.o_proj.weight, rows=mu["width"], columns=by_head)
        mlp.down_proj.weight = scaled(mlp.down_proj.weight, rows=mu["width"], columns=mu["neurons"][number])
        resize(attention.q_proj, rows=queries, columns=wide)
        for projection in (attention.k_proj, attention.v_proj):
            resize(projection, rows=keys, columns=wide)
        resize(attention.o_proj, rows=wide, columns=queries)
        for projection in (mlp.gate_proj, mlp.up_proj):
            resize(projection, rows=neurons, columns=wide)
        resize(mlp.down_proj, rows=wide, columns=neurons)
        for norm in (layer.input_layernorm, layer.post_attention_layernorm):
            resize(norm, rows=wide)
    if tied:  # the head reads the embedding, which now has mu in it: the last norm takes it out again
        body.norm.weight = scaled(body.norm.weight, rows=1 / mu["width"])
        head.weight, head.in_features = body.embed_tokens.weight, len(wide)
    resize(body.norm, rows=wide)
    heads = int(kept["heads"][0].sum())
    config = stack.config
    config.hidden_size, config.intermediate_size = len(wide), int(kept["neurons"][0].sum())
    config.num_key_value_heads, config.num_attention_heads = heads, heads * sizes.queries
    config.head_dim = sizes.head_dim
