"""CDPruner: visual tokens that suit the question and are unlike each other, by a determinantal point process
(arXiv 2506.10967)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from transformers import CLIPModel, PreTrainedModel

from laconic import checks
from laconic.errors import UnsupportedModelError
from laconic.families.vision import VisualSpan, vision_family_of
from laconic.method import register
from laconic.ops.dpp import greedy_map
from laconic.ops.similarity import cosine, unit
from laconic.stream.assemble import check_protected
from laconic.stream.contract import POLICIES, Cut, Policy, Stream, TokenMethod
from laconic.stream.joint_space import Question, joint_space
from laconic.stream.views import Reduced, by_view, counts

LEAST = 1e-6


@register(
    "cdpruner",
    site="tokens",
    modality="image",
    mechanism="pruning",
    principle="similarity, query",
    source="arXiv 2506.10967",
    query_aware=True,
    inferred="relevance without CLIP; tokens beyond the kernel's rank by relevance; equal relevance of all tokens",
)
@dataclass(kw_only=True)
class CDPruner(TokenMethod):
    """Of every view keep the subset A with the largest det(L_A), built greedily, for L_ij = r_i cos(x_i, x_j) r_j.

    x are features after the projector; r is how relevant a token is to the question, scaled to 0 .. 1 over the views of an
    image. Every view keeps the same share, in raster order.

    Args:
        text: ``"clip"`` (the paper): r is the mean of sign * cos over the question's embeddings in CLIP's joint space, with
            patches of the feature layer; ``"llm"``: features are compared with the embeddings of the words after the last
            image, which needs no CLIP (what ports to Qwen models do, each in its own way).
        sign: 1: alike is relevant; -1: unlike; None: -1 with "clip", where patches that match a text score low, 1 with
            "llm".
        theta: weight of relevance, r_i becomes exp(theta r_i / (2 (1 - theta))); None: r_i as it is, as released.
        text_tower: the CLIP model whose vision half is this model's encoder, or its folder (safetensors).
        tokenizer: of that CLIP model, or its folder; None: from the folder of `text_tower`.
        question: one for all, one for each sequence, or a function of the prompt's text token ids (all but placeholders).
        positions: "renumber", as in LLaVA models, or "gather", as models with M-RoPE do in any case.

    Raises:
        UnsupportedModelError: text="clip" and a model that merges patches, or a CLIP model of another encoder.
        ValueError: text="clip" without text_tower, tokenizer or question; text="llm" and no word after the last image.
    """

    text: Literal["clip", "llm"] = "llm"
    sign: Literal[1, -1] | None = None
    theta: float | None = None
    text_tower: CLIPModel | str | None = None
    tokenizer: Any = None
    question: Question | None = None
    positions: Policy = "renumber"

    default_keep: ClassVar[float | None] = 0.111

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.one_of(self, "text", "clip", "llm")
        checks.one_of(self, "sign", 1, -1, None)
        checks.one_of(self, "positions", *POLICIES)
        if self.theta is not None and not 0 <= self.theta < 1:
            raise ValueError(f"cdpruner: theta={self.theta} is a weight; it must be in [0, 1), or None.")

    def attach(self, model: PreTrainedModel) -> None:
        if self.neutral or self.text == "llm":
            return
        family = vision_family_of(model)
        if family.merges:
            raise UnsupportedModelError(
                f"cdpruner: a {family.name} model merges patches in its encoder, which is no CLIP; choose text='llm'."
            )
        self._space = joint_space(self, model)

    def cut(self, stream: Stream) -> Cut | None:
        limits, relevant = counts(stream, self), self._relevance(stream)

        def reduce(number: int, span: VisualSpan, must: Tensor) -> Reduced:
            check_protected(int(must.sum()), limits[number])
            x, r = unit(stream.visual.features(span)), relevant[number].to(must.device)
            kept = greedy_map(r[:, None] * (x @ x.mT) * r, limits[number], must).sort().values
            to = torch.full_like(r, -1, dtype=torch.long)
            to[kept] = kept
            return Reduced(kept, to, scores=r)

        return by_view(stream, reduce, self.positions)

    def _relevance(self, stream: Stream) -> dict[int, Tensor]:
        """r of every view's tokens, [n], by the view's number in `stream.visual.spans`."""
        sign = self.sign or (-1 if self.text == "clip" else 1)
        asked: dict[int, Tensor] = {}
        images: dict[tuple[int, str, int], dict[int, Tensor]] = {}
        for i, span in enumerate(stream.visual.spans):
            if len(span.tokens):
                if span.row not in asked:
                    asked[span.row] = self._question(stream, span.row)
                similar = sign * cosine(self._seen(stream, span), asked[span.row]).mean(1)
                images.setdefault((span.row, span.modality, span.image), {})[i] = similar
        found: dict[int, Tensor] = {}
        for views in images.values():
            found |= zip(views, self._scaled(list(views.values())), strict=True)
        return found

    def _scaled(self, similar: list[Tensor]) -> list[Tensor]:
        """Relevance of the views of one image, from their similarity to the question; all 1 where all are equal."""
        every = torch.cat(similar)
        low, high = every.min(), every.max()
        scaled = [(x - low + LEAST) / (high - low) if high > low else torch.ones_like(x) for x in similar]
        return scaled if self.theta is None else [(self.theta / (2 * (1 - self.theta)) * x).exp() for x in scaled]

    def _question(self, stream: Stream, row: int) -> Tensor:
        """Vectors of a batch row's question, [m, C']."""
        if self.text == "clip":
            return self._space.pieces(self._space.asked(stream, row))
        texts = stream.texts(row)
        after = texts[texts > stream.images(row)[-1]]
        if not len(after):
            raise ValueError("cdpruner: no text follows the last image, so there is no question; ask after the image.")
        return stream.hidden[row, after]

    def _seen(self, stream: Stream, span: VisualSpan) -> Tensor:
        """A view's tokens in the space of the question, [n, C']."""
        if self.text == "llm":
            return stream.visual.features(span)
        clip = self._space.clip
        patches = stream.visual.patches(span).to(clip.dtype)
        with torch.no_grad():
            seen = clip.visual_projection(clip.vision_model.post_layernorm(patches))
        return stream.visual.pool(span, seen)
