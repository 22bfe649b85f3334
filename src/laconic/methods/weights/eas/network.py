"""EAS, efficient attention skipping: adapters in place of the attentions that a task does not need (arXiv 2403.15226).

A skipped layer is ``x + FFN(y * gamma2)`` with ``y = PIA(n1(x))``: no attention runs and no keys or values are stored. PIA,
a low-rank map that mixes the prompt's mean into every token, is linear once the prompt is known, so it folds into the FFN.
Kept layers have a plain adapter of the same kind before q, k and v.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from laconic.artifact import fingerprint, model_name
from laconic.errors import ArtifactError, SessionError, UnsupportedModelError
from laconic.families import family_of

GROUPS = 2
PARTS = ("self_attn", "mlp", "input_layernorm", "post_attention_layernorm")


class Grouped(nn.Module):
    """A block-diagonal map h -> D of `GROUPS` blocks, with bias."""

    def __init__(self, width: int, size: int):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(GROUPS, size // GROUPS, width // GROUPS))
        self.bias = nn.Parameter(torch.zeros(size))

    def forward(self, z: Tensor) -> Tensor:
        """[..., h] -> [..., D]."""
        return torch.einsum("...gi,goi->...go", z.unflatten(-1, (GROUPS, -1)), self.weight).flatten(-2) + self.bias

    def dense(self) -> Tensor:
        """The whole matrix, [D, h]."""
        return torch.block_diag(*self.weight)


class Adapter(nn.Module):
    """PIA: ``y = u + s (w0 B + w1 D) z`` for u [B, T, D]; z is A u in a kept layer, ``(z_g + C u) / 2`` in a skipped one,
    where z_g is the mean of A u over the prompt. ``w = softmax(R mean(u) / temperature)``.

    w and z_g are computed from the prompt; the tokens that follow reuse them until `begin` is called for another prompt.

    Args:
        size: D of the model. `width`: h, even.
        skipped: whether the layer's attention is skipped.
        random: initialise B and D by Xavier's rule, not with zeros (with zeros the adapter starts as the identity).
    """

    def __init__(
        self,
        size: int,
        width: int,
        skipped: bool = False,
        *,
        scale: float = 1.0,
        temperature: float = 10.0,
        dropout: float = 0.1,
        random: bool = False,
    ):
        super().__init__()
        if width % GROUPS or size % GROUPS:
            raise ValueError(f"width={width} and the model's size={size} must be multiples of {GROUPS}.")
        self.scale, self.temperature = scale, temperature
        self.down, self.up0, self.up1 = nn.Linear(size, width), Grouped(width, size), Grouped(width, size)
        self.own = nn.Linear(size, width) if skipped else None
        self.router, self.dropout = nn.Linear(size, 2), nn.Dropout(dropout)
        for linear in (self.down, self.own):
            if linear is not None:
                nn.init.xavier_uniform_(linear.weight)
                nn.init.zeros_(linear.bias)
        if random:
            for up in (self.up0, self.up1):
                for block in up.weight.unbind():
                    nn.init.xavier_uniform_(block)
        self.begin(None)

    def begin(self, mask: Tensor | None) -> None:
        """Start a new prompt; `mask` [B, T]: the tokens that its means run over, None for all."""
        self._mask = mask
        self.mix: Tensor | None = None
        self.message: Tensor | None = None

    def _mean(self, x: Tensor) -> Tensor:
        """[B, T, D] -> [B, D]."""
        if self._mask is None:
            return x.mean(1)
        mask = self._mask.to(x)[..., None]
        return (x * mask).sum(1) / mask.sum(1).clamp(min=1)

    def forward(self, u: Tensor) -> Tensor:
        if self.mix is None:
            self.mix = (self.router(self._mean(u)) / self.temperature).softmax(-1)
            self.message = None if self.own is None else self._mean(self.down(u))
        z = self.down(u) if self.own is None else 0.5 * (self.message[:, None] + self.own(u))  # type: ignore[index]
        z = self.dropout(z)
        w0, w1 = self.mix[:, None, :1], self.mix[:, None, 1:]
        return u + self.scale * (w0 * self.up0(z) + w1 * self.up1(z))

    def linear(self) -> tuple[Tensor, Tensor]:
        """(M [D, D], b [D]) with ``y = M u + b`` for the single sequence whose prompt ran last.

        Raises:
            SessionError: no prompt has run, or several ran at once.
        """
        if self.mix is None or len(self.mix) != 1:
            raise SessionError("an adapter folds for one prompt: run it as a batch of one first, then fold.")
        w0, w1 = self.mix[0]
        up = w0 * self.up0.dense() + w1 * self.up1.dense()
        bias = w0 * self.up0.bias + w1 * self.up1.bias
        inner: Tensor = self.down.bias
        matrix = up @ self.down.weight
        if self.own is not None:
            assert self.message is not None
            matrix, inner = up @ (0.5 * self.own.weight), 0.5 * (self.own.bias + self.message[0])
        return torch.eye(len(matrix)).to(matrix) + self.scale * matrix, self.scale * (up @ inner + bias)


class Adapters(nn.Module):
    """Adapters of one model, and which of its attentions they replace (a list that belongs to a task).

    Args:
        size, depth: of the model. `skip`: layers without attention; layer 0 must keep its attention: positions are counted
            there.
        width, skip_width: of adapters in kept and in skipped layers (8 and 32 for LaVIN, 128 and 128 or 256 for LLaVA).
        both: every layer but the first has both kinds, for the search.
        options: `scale`, `temperature`, `dropout`, `random` of `Adapter`.
    """

    def __init__(
        self,
        size: int,
        depth: int,
        skip: Collection[int] = (),
        *,
        width: int = 8,
        skip_width: int = 32,
        both: bool = False,
        **options: Any,
    ):
        super().__init__()
        wrong = [layer for layer in skip if not 0 < layer < depth]
        if wrong:
            raise ValueError(f"skip={sorted(skip)}: layer {wrong[0]} cannot be skipped; choose from 1..{depth - 1}.")
        self.skip = tuple(sorted(skip))
        self.about = {"size": size, "depth": depth, "width": width, "skip_width": skip_width, "both": both, **options}
        kept = [i for i in range(depth) if both or i not in self.skip]
        skipped = range(1, depth) if both else self.skip
        self.kept = nn.ModuleDict({str(i): Adapter(size, width, **options) for i in kept})
        self.skipped = nn.ModuleDict({str(i): Adapter(size, skip_width, True, **options) for i in skipped})

    @classmethod
    def of(cls, model: PreTrainedModel, skip: Collection[int] = (), **settings: Any) -> Adapters:
        """For `model`, on its device and in its dtype."""
        stack = family_of(model).stack(model)
        made = cls(stack.config.hidden_size, len(stack.layers), skip, **settings)  # type: ignore[arg-type]
        return made.to(next(stack.parameters()))

    def each(self) -> Iterator[Adapter]:
        """All adapters."""
        for found in (*self.kept.values(), *self.skipped.values()):
            assert isinstance(found, Adapter)
            yield found

    def save(self, path: str | Path, model: PreTrainedModel) -> None:
        """Write a safetensors file, with the list of skipped layers and the model in its header."""
        about = {"method": "eas", "model": model_name(model), "fingerprint": fingerprint(model)}
        head = {**about, "settings": self.about, "skip": list(self.skip)}
        save_file(
            {n: x.detach().cpu().contiguous() for n, x in self.state_dict().items()}, path, {"laconic": json.dumps(head)}
        )

    @classmethod
    def load(cls, path: str | Path, model: PreTrainedModel) -> Adapters:
        """The adapters in a file; raises `ArtifactError` when it has none, or they belong to another model."""
        try:
            with safe_open(path, "pt") as file:
                head = json.loads((file.metadata() or {})["laconic"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no dict)
            made = cls(skip=head["skip"], **head["settings"])
            made.load_state_dict(tensors)
        except (OSError, SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
            raise ArtifactError(f"{str(path)!r} holds no adapters written by `Adapters.save`: {error}") from error
        if head["fingerprint"] != fingerprint(model):
            raise ArtifactError(f"adapters {str(path)!r} were trained for another model ({head['model']}).")
        return made.to(next(model.parameters())).eval()


class SkippedLayer(nn.Module):
    """A decoder layer without attention: ``x + FFN(adapter(n1(x)) * gamma2)``; when folded, the FFN contains the rest."""

    def __init__(self, layer: nn.Module, adapter: Adapter | None, mlp: nn.Module | None = None):
        super().__init__()
        self.input_layernorm, self.adapter = layer.input_layernorm, adapter
        self.gamma = layer.post_attention_layernorm.weight if adapter is not None else None  # type: ignore[union-attr]
        self.mlp = layer.mlp if mlp is None else mlp
        self.attention_type = getattr(layer, "attention_type", None)  # which mask it gets; it needs none

    def forward(self, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        u = self.input_layernorm(hidden_states)  # type: ignore[operator]
        if self.adapter is not None:
            u = self.adapter(u) * self.gamma
        return hidden_states + self.mlp(u)  # type: ignore[operator]


@contextmanager
def applied(
    model: PreTrainedModel, adapters: Adapters, skip: Collection[int] | None = None, over: Tensor | None = None
) -> Iterator[None]:
    """While open, skipped layers of this model run without attention and all adapters are active. Open it outside
    `laconic.compress`, so that the session's hooks are on the layers that run.

    Args:
        skip: layers to skip instead of `adapters.skip`, during a search.
        over: tokens of the prompt [B, T] that the means run over, such as the question's; None: all but padding. The mean
            sees the whole prompt, later tokens included: in training, restrict it to what comes before the answer.
    """
    stack, layers = _layers(model)
    chosen = set(adapters.skip if skip is None else skip)

    def fresh(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        cache, mask = kwargs.get("past_key_values"), kwargs.get("attention_mask")
        if cache is not None and cache.get_seq_length():
            return
        real = mask if isinstance(mask, Tensor) and mask.ndim == 2 else None
        for adapter in adapters.each():
            adapter.begin(real if over is None else over)

    with _replaced() as put:
        for i, layer in enumerate(layers):
            if i in chosen:
                put(layers, str(i), SkippedLayer(layer, adapters.skipped[str(i)]))  # type: ignore[arg-type]
            else:
                put(layer, "input_layernorm", nn.Sequential(layer.input_layernorm, adapters.kept[str(i)]))  # type: ignore[arg-type]
        handle = stack.register_forward_pre_hook(fresh, with_kwargs=True)
        try:
            yield
        finally:
            handle.remove()


@contextmanager
def folded(model: PreTrainedModel, adapters: Adapters) -> Iterator[None]:
    """While open, the adapters are folded into the weights for the prompt that ran last under `applied`: an answer is
    decoded from its cache without the adapters' cost. The model's own weights are not touched; every fold starts from them.

    Raises:
        SessionError: no prompt has run, or several ran at once.
    """
    _, layers = _layers(model)
    with torch.no_grad(), _replaced() as put:
        for i, layer in enumerate(layers):
            if i in adapters.skip:
                matrix, bias = adapters.skipped[str(i)].linear()  # type: ignore[operator]
                gamma: Any = layer.post_attention_layernorm.weight  # type: ignore[union-attr]
                mlp: Any = copy.copy(layer.mlp)
                mlp._modules = dict(mlp._modules)  # the copy shares everything except the two modules that read the input
                for name in ("gate_proj", "up_proj"):
                    setattr(mlp, name, _into(getattr(layer.mlp, name), gamma[:, None] * matrix, gamma * bias))
                put(layers, str(i), SkippedLayer(layer, None, mlp))
            else:
                matrix, bias = adapters.kept[str(i)].linear()  # type: ignore[operator]
                attention: Any = layer.self_attn
                for name in ("q_proj", "k_proj", "v_proj"):
                    put(attention, name, _into(getattr(attention, name), matrix, bias))
        yield


def _into(linear: nn.Linear, matrix: Tensor, bias: Tensor) -> nn.Linear:
    """x -> linear(matrix x + bias) as one map."""
    made = nn.Linear(linear.in_features, linear.out_features, device=matrix.device, dtype=matrix.dtype)
    made.weight = nn.Parameter(linear.weight @ matrix, requires_grad=False)
    offset = linear.weight @ bias
    made.bias = nn.Parameter(offset if linear.bias is None else offset + linear.bias, requires_grad=False)
    return made


@contextmanager
def _replaced() -> Iterator[Any]:
    """`put(module, name, child)` sets children of module instances; the originals are restored at the end."""
    before: list[tuple[nn.Module, str, Any]] = []

    def put(module: nn.Module, name: str, child: nn.Module) -> None:
        before.append((module, name, module._modules[name]))
        module._modules[name] = child

    try:
        yield put
    finally:
        for module, name, child in reversed(before):
            module._modules[name] = child


def _layers(model: PreTrainedModel) -> tuple[PreTrainedModel, nn.ModuleList]:
    stack = family_of(model).stack(model)
    layers = stack.layers
    assert isinstance(layers, nn.ModuleList)
    for layer in layers:
        missing = [name for name in PARTS if not hasattr(layer, name)]
        if isinstance(layer, SkippedLayer) or missing or not hasattr(layer.mlp, "gate_proj"):
            raise UnsupportedModelError(
                f"{type(layer).__name__} is not laid out as a layer of Llama or Qwen2 (it lacks "
                f"{', '.join(missing) or 'a plain MLP'}), or EAS is active on it already; attention is skipped in such "
                "layers only."
            )
    return stack, layers
