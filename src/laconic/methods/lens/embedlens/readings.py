"""EmbedLens: a visual token read through the word embeddings that point the same way (arXiv 2603.00510)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedModel

from laconic.families import family_of
from laconic.families.vision import VisionWatch, Visual

CLASSES = ("vit_sink", "llm_sink", "dead", "alive")
"""In order of priority: a token near several anchors belongs to the first."""
ALIVE = CLASSES.index("alive")


def nearest(x: Tensor, embeddings: Tensor, k: int = 3, chunk: int = 8192) -> tuple[Tensor, Tensor]:
    """The `k` words that point most nearly in the direction of each token.

    Args:
        x: tokens, [N, D]: projected visual tokens, or hidden states of any layer.
        embeddings: input embeddings of the words, [V, D]; `chunk` of them are compared at a time.

    Returns:
        cosines, the largest first, and word ids, [N, k] each. Equal cosines go to the smaller id.
    """
    x = nn.functional.normalize(x.float(), dim=-1)
    cosines, ids = x.new_zeros(len(x), 0), torch.zeros(len(x), 0, dtype=torch.long, device=x.device)
    for start in range(0, len(embeddings), chunk):
        words = nn.functional.normalize(embeddings[start : start + chunk].float(), dim=-1)
        own = torch.arange(start, start + len(words), device=x.device).expand(len(x), -1)
        cosines, ids = torch.cat([cosines, x @ words.mT], 1), torch.cat([ids, own], 1)
        cosines, order = cosines.sort(dim=1, descending=True, stable=True)
        cosines, ids = cosines[:, :k], ids.gather(1, order[:, :k])
    return cosines, ids


def logit_lens(x: Tensor, head: Callable[[Tensor], Tensor], k: int = 3) -> tuple[Tensor, Tensor]:
    """The same reading from the output side: the `k` largest probabilities of `head` (final norm and language
    model head, [N, D] -> [N, V]) and their ids, [N, k] each. For comparison with `nearest`."""
    best = head(x).float().softmax(-1).topk(k)
    return best.values, best.indices


@dataclass(frozen=True)
class Anchors:
    """Word ids that mark the classes of one model's visual tokens. They belong to one projector and one vocabulary, so there
    are no defaults: `discover` finds those of a model."""

    vit_sink: tuple[int, ...] = ()
    llm_sink: tuple[int, ...] = ()
    dead: tuple[int, ...] = ()

    @classmethod
    def of(cls, data: Mapping[str, Sequence[int]]) -> Anchors:
        """From an artifact's data."""
        return cls(*(tuple(data[name]) for name in CLASSES[:ALIVE]))

    def classify(self, ids: Tensor) -> Tensor:
        """Nearest words [N, k] (the paper has k = 3) -> class numbers in `CLASSES`, [N]."""
        kinds = torch.full((len(ids),), ALIVE, device=ids.device)
        for number in reversed(range(ALIVE)):
            anchors = torch.tensor(getattr(self, CLASSES[number]), dtype=ids.dtype, device=ids.device)
            kinds[torch.isin(ids, anchors).any(-1)] = number
        return kinds


@dataclass(frozen=True)
class Reading:
    """One visual token.

    Attributes:
        row, token: batch row, and number of the token in the prompt. `image`: number of the image in the batch.
        words, cosines: the nearest words. `kind`: one of `CLASSES`; None where no anchors are known.
    """

    row: int
    token: int
    image: int
    words: tuple[str, ...]
    cosines: tuple[float, ...]
    kind: str | None


def read(
    model: PreTrainedModel,
    tokenizer: Any,
    inputs: Mapping[str, Tensor],
    *,
    anchors: Anchors | None = None,
    k: int = 3,
    layer: int = 0,
) -> list[Reading]:
    """The reading of every visual token of a prompt, in prompt order.

    Args:
        inputs: of the model, images included.
        layer: read the hidden states before this decoder layer; 0: the projected tokens themselves. Classes are those of the
            projected tokens, whatever the layer.

    Raises:
        ValueError: there is no such layer, or there are no images.
    """
    visual, hidden = look(model, inputs, sorted({0, layer}))
    words = words_of(model)
    readings = []
    for span in visual.spans:
        at = span.tokens
        cosines, ids = nearest(hidden[layer][span.row, at], words, k)
        kinds: list[str | None] = [None] * len(at)
        if anchors is not None:
            first = ids if layer == 0 and k == 3 else nearest(hidden[0][span.row, at], words)[1]
            kinds = [CLASSES[kind] for kind in anchors.classify(first).tolist()]
        for token, row_ids, row_cosines, kind in zip(at.tolist(), ids.tolist(), cosines.tolist(), kinds, strict=True):
            decoded = tuple(tokenizer.decode([i]) for i in row_ids)
            readings.append(Reading(span.row, token, span.image, decoded, tuple(row_cosines), kind))
    return sorted(readings, key=lambda reading: (reading.row, reading.token))


@dataclass(frozen=True)
class Shares:
    """Shares of the classes (in the order of `CLASSES`) in each image, [M, 4], their mean and standard deviation, [4]."""

    images: Tensor
    mean: Tensor
    deviation: Tensor


def shares(kinds: Sequence[Tensor]) -> Shares:
    """From the class numbers of every image, [N] each; N may differ."""
    rows = torch.stack([torch.bincount(k, minlength=len(CLASSES)).float() / len(k) for k in kinds])
    return Shares(rows, rows.mean(0), rows.std(0, unbiased=False))


def norms(model: PreTrainedModel, inputs: Mapping[str, Tensor]) -> list[dict[str, float]]:
    """Before every decoder layer and after the last one: mean length of visual tokens and of text (``visual``, ``text``),
    and the mean cosine of a token to itself one layer earlier (``visual_cosine``, ``text_cosine``; not in the first row)."""
    depth = len(_layers(model))
    visual, hidden = look(model, inputs, list(range(depth + 1)))
    mask = inputs.get("attention_mask")
    text = ~visual.mask if mask is None else ~visual.mask & mask.bool()
    rows = []
    for layer in range(depth + 1):
        row = {}
        for name, at in (("visual", visual.mask & ~visual.separators), ("text", text)):
            x = hidden[layer][at].float()
            row[name] = float(x.norm(dim=-1).mean())
            if layer:
                row[f"{name}_cosine"] = float(
                    nn.functional.cosine_similarity(x, hidden[layer - 1][at].float(), dim=-1).mean()
                )
        rows.append(row)
    return rows


@torch.no_grad()
def look(model: PreTrainedModel, inputs: Mapping[str, Tensor], layers: Sequence[int]) -> tuple[Visual, dict[int, Tensor]]:
    """The images of a prompt, and hidden states [B, T, D] before the decoder layers `layers` (the depth stands for those
    after the last layer, before the final norm), from one pass of the model.

    Raises:
        ValueError: there is no such layer, or `inputs` have no images.
    """
    blocks, hidden = _layers(model), {}
    wrong = [layer for layer in layers if not 0 <= layer <= len(blocks)]
    if wrong:
        raise ValueError(
            f"layer={wrong[0]}: this model has hidden states before layers 0..{len(blocks) - 1} and after them."
        )
    handles: list[RemovableHandle] = []

    def before(layer: int) -> Callable[..., None]:
        def note(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            hidden[layer] = (args[0] if args else kwargs["hidden_states"]).clone()

        return note

    def last(module: nn.Module, args: Any, output: Any) -> None:
        hidden[len(blocks)] = output[0] if isinstance(output, tuple) else output

    try:
        handles += [
            blocks[layer].register_forward_pre_hook(before(layer), with_kwargs=True)
            for layer in layers
            if layer < len(blocks)
        ]
        handles.append(blocks[-1].register_forward_hook(last))
        with VisionWatch(model) as watch:
            model(**inputs, use_cache=False)
            visual = watch.visual
    finally:
        for handle in handles:
            handle.remove()
    if visual is None:
        raise ValueError("the lens reads visual tokens, and these inputs have no images; pass pixel_values with the prompt.")
    return visual, hidden


def words_of(model: PreTrainedModel) -> Tensor:
    """Input embeddings of all words, [V, D]."""
    weight = model.get_input_embeddings().weight
    assert isinstance(weight, Tensor)
    return weight


def _layers(model: PreTrainedModel) -> nn.ModuleList:
    layers = family_of(model).stack(model).layers
    assert isinstance(layers, nn.ModuleList)
    return layers
