"""Recoverable compression: a filter by CLS attention, recovery of what matches the question, the rest merged
(arXiv 2409.01179)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from transformers import CLIPModel, PreTrainedModel

from laconic import checks
from laconic.errors import SessionError, UnsupportedModelError
from laconic.families.vision import Visual, VisualSpan, vision_family_of
from laconic.families.vision.encoder import EncoderAttention, layer_number
from laconic.method import register
from laconic.ops.outliers import outlier_share
from laconic.ops.similarity import cosine, unit
from laconic.stream.assemble import assemble, choose
from laconic.stream.contract import Cut, Stream, TokenMethod
from laconic.stream.joint_space import Question, joint_space
from laconic.stream.shares import spread


@register(
    "recoverable_compression",
    site="encoder",
    modality="image",
    mechanism="pruning, merging",
    principle="attention, query",
    source="arXiv 2409.01179",
    query_aware=True,
    inferred="budgets (the three counts scaled in proportion), similarity in the LLM's embedding space, crops",
)
@dataclass(kw_only=True)
class RecoverableCompression(TokenMethod):
    """Keep what the CLS token singles out, then what the question singles out, and merge the rest into a few tokens.

    With dyn(v, m) the share of outliers in v (local outlier factor of m neighbours, times `scale`), for a view of N patches:

        a = softmax(q_cls k^T / sqrt(C)) of the last encoder layer, all heads as one;  V = top int(N * dyn(a)) of a
        s = cos(question, patch) / sqrt(C'), at its minimum on V;  T = top int((N - |V|) * dyn(s)) of s
        of the others O, centres are the top int(|O| * dyn(a_O)) of a;  f_i + sum a_j f_j over the `near` others j of largest
        cos(k_i, k_j) + weight * s_j stands for centre i, and sum a_j f_j over all that are not centres for these

    The output is V and T in raster order, then the centres by a, then the sum; without centres, only V and T. Every view is
    treated separately; where an image has crops, merged tokens stay at the place of their centre, because crops share lines.

    Args:
        keep, tokens, bytes: a budget scales the three counts in proportion. Without one dyn decides, as published.
        text: ``"clip"``: the question and the patches are compared in CLIP's joint space (the paper); ``"llm"``: projected
            patches and the mean of the question's token embeddings are compared in the LLM's (needs no CLIP, but is only an
            approximation): the text after the last image is the question, or else all text.
        text_tower: the CLIP model whose vision half is this model's encoder, or its folder (safetensors).
        tokenizer: of that CLIP model, or its folder; None: from the folder of `text_tower`.
        question: one for all, one for each sequence, or a function of the prompt's text token ids (all but placeholders).
        scale: of dyn, which stays below 1.
        neighbours, inner_neighbours: m for a and s, and for a_O.
        near, weight: of merging.
        paper_code: do as the release does: the number of centres from |V| + |T|, keys of other patches in the merging, the
            text embedding from the last padded place (otherwise that of the end-of-text token).

    Raises:
        UnsupportedModelError: no CLS token, patches merged before the projector, or a CLIP model of another encoder.
        ValueError: text="clip" without text_tower, tokenizer or question.
    """

    text: Literal["clip", "llm"] = "clip"
    text_tower: CLIPModel | str | None = None
    tokenizer: Any = None
    question: Question | None = None
    scale: float = 1.0
    neighbours: int = 20
    inner_neighbours: int = 10
    near: int = 32
    weight: float = 50.0
    paper_code: bool = False

    default_keep: ClassVar[float | None] = None

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.one_of(self, "text", "clip", "llm")
        if self.scale <= 0:
            raise ValueError(f"recoverable_compression: scale={self.scale} must be above 0.")
        for name in ("neighbours", "inner_neighbours", "near"):
            checks.at_least(self, name, 1)

    # -- the question ----------------------------------------------------------------------------------------------
    def attach(self, model: PreTrainedModel) -> None:
        if self.neutral:
            return
        family = vision_family_of(model)
        if not family.has_cls(model) or family.merges:
            raise UnsupportedModelError(
                f"recoverable_compression needs an encoder with a CLS token and a projector of single patches, which this "
                f"{family.name} model does not have; use another method."
            )
        if self.text == "llm":
            return
        self._space = joint_space(self, model)

    def encoder_layers(self, depth: int) -> tuple[int, ...]:
        return () if self.neutral else (-1,)

    def _text(self, stream: Stream, row: int) -> Tensor:
        """The question as a vector in the space of `_seen`, [C']."""
        if self.text == "llm":
            texts, images = stream.texts(row), stream.images(row)
            after = texts[texts > images.max()]
            rows = after if len(after) else texts
            if not len(rows):
                raise SessionError(f"recoverable_compression: sequence {row} has no text to compare its images with.")
            return unit(stream.hidden[row, rows]).mean(0)
        space = self._space
        out = space.text(space.asked(stream, row))
        return space.project(out.last_hidden_state[:, -1] if self.paper_code else out.pooler_output)[0]

    def _seen(self, visual: Visual, span: VisualSpan) -> Tensor:
        """Patches in the space of the question, [n, C']; in CLIP's without its last norm, as released."""
        if self.text == "llm":
            return visual.features(span)
        last = visual.calls[span.modality].output.last_hidden_state[:, 1:].flatten(0, 1)
        patches = last[span.patches][span.cells >= 0]
        clip = self._space.clip
        with torch.no_grad():
            return clip.visual_projection(patches.to(clip.dtype))

    # -- the cut ---------------------------------------------------------------------------------------------------
    def cut(self, stream: Stream) -> Cut | None:
        visual = stream.visual
        kept, values = [], []
        merged = torch.arange(stream.hidden.shape[1], device=stream.hidden.device).repeat(len(stream.hidden), 1)
        for row in range(len(stream.hidden)):
            spans = [span for span in visual.spans if span.row == row and len(span.tokens)]
            stays, becomes = [stream.images(row)[:0]], [stream.hidden[row, :0]]
            text = self._text(stream, row) if spans else None
            for span, limit in zip(spans, self._limits(stream, row, spans), strict=True):
                assert text is not None
                rows = span.tokens.to(merged)
                heads = visual.calls[span.modality].heads[layer_number(visual.family.tower(visual.model), -1)]
                attention = joint_attention(heads, span.patches)[span.cells >= 0]
                seen = self._seen(visual, span)
                similar = cosine(text[None], seen)[0] / math.sqrt(seen.shape[-1])
                must = None if stream.protected is None else stream.protected[row, rows]
                parts = self.parts(attention, similar.to(attention), limit, must)
                keys = visual.keys(span, -1).permute(1, 2, 0, 3).flatten(2)[span.cells >= 0]
                x = visual.patches(span)[span.cells >= 0]
                new = self.merge(x, keys, attention, similar.to(attention), parts)
                main = parts.main
                places = torch.cat([main, parts.centres, parts.others[-1:] if len(parts.centres) else parts.others[:0]])
                stays.append(rows[places])
                becomes.append(stream.hidden[row, rows[main]])
                if len(new):
                    becomes.append(visual.project(new.to(x)).to(stream.hidden))
                merged[row, rows[parts.others]] = rows[places[-1]] if len(parts.centres) else -1
            kept.append(torch.cat(stays))
            values.append(torch.cat(becomes))
        crops = any(span.crop != 0 for span in visual.spans)
        order = "stream" if crops else "given"
        return assemble(stream, kept, values, positions="renumber", order=order, merged=merged)

    def _limits(self, stream: Stream, row: int, spans: list[VisualSpan]) -> list[int | None]:
        """Number of tokens of every view by the budget; None where dyn decides."""
        if self.budget_from_parameters or not spans:
            return [None] * len(spans)
        sizes = [len(span.tokens) for span in spans]
        mean = self.allowance(sum(sizes), len(stream.texts(row)), stream.entry_bytes)
        return list(spread(int(mean + 0.5), sizes, sizes))

    def parts(self, attention: Tensor, similar: Tensor, limit: int | None = None, must: Tensor | None = None) -> Parts:
        """V, T and the centres of a view from a [N] and s [N]; `limit`: tokens that may stay, `must` [N]: protected ones."""
        size = len(attention)
        counts = self._counts(attention, similar, must)
        if limit is not None:
            counts = scaled(counts, limit, size, 0 if must is None else int(must.sum()))
        visual, text, centres = self._choose(attention, similar, counts, must)
        rest = torch.ones(size, dtype=torch.bool, device=attention.device)
        rest[torch.cat([visual, text, centres])] = False
        others = rest.nonzero()[:, 0]
        if not len(others):
            visual, centres = torch.cat([visual, centres]), centres[:0]
        return Parts(visual, text, centres, others)

    def _dyn(self, values: Tensor, neighbours: int) -> float:
        return min(1.0, self.scale * outlier_share(values, neighbours))

    def _counts(self, attention: Tensor, similar: Tensor, must: Tensor | None) -> tuple[int, int, int]:
        """|V|, |T| and the number of centres as published; at least one token stays."""
        size = len(attention)
        least = 1 if must is None else max(1, int(must.sum()))
        first = int(size * self._dyn(attention, self.neighbours) + 1e-6)
        first = min(size, max(first, 0 if must is None else int(must.sum())))
        visual = choose(attention, first, must)
        recovered = similar.clone()
        recovered[visual] = similar.min()
        second = int((size - first) * self._dyn(recovered, self.neighbours) + 1e-6)
        if first + second == 0:
            first = least
        visual, text, _ = self._choose(attention, similar, (first, second, 0), must)
        rest = torch.ones(size, dtype=torch.bool, device=attention.device)
        rest[torch.cat([visual, text])] = False
        base = first + second if self.paper_code else int(rest.sum())
        third = int(base * self._dyn(attention[rest], self.inner_neighbours) + 1e-6)
        return first, second, min(third, int(rest.sum()))

    def _choose(
        self, attention: Tensor, similar: Tensor, counts: tuple[int, int, int], must: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        visual = choose(attention, counts[0], must)
        free = similar.float().clone()
        free[visual] = float("-inf")
        text = choose(free, counts[1])
        rest = attention.float().clone()
        rest[torch.cat([visual, text])] = float("-inf")
        centres = choose(rest, counts[2])
        return visual, text, centres[attention[centres].sort(descending=True, stable=True).indices]

    def merge(self, x: Tensor, keys: Tensor, attention: Tensor, similar: Tensor, parts: Parts) -> Tensor:
        """Vectors that stand for the centres and for all other tokens of a view, [n_c + 1, C] fp32; [0, C] without centres.

        Args:
            x: features [N, C]. `keys`: [N, C], heads concatenated.
        """
        if not len(parts.centres):
            return x[:0].float()
        x, attention = x.float(), attention.float()
        rest = torch.cat([parts.centres, parts.others]).sort().values
        looked = keys[: len(rest)] if self.paper_code else keys[rest]  # the release indexes all keys, not the rest's
        affinity = cosine(looked, looked) + self.weight * similar[rest].float()
        new = []
        for centre in parts.centres:
            own = int((rest == centre).nonzero())
            near = affinity[own].index_fill(0, torch.tensor([own], device=x.device), float("-inf"))
            chosen = rest[near.topk(min(self.near, len(rest) - 1)).indices]
            new.append(x[centre] + attention[chosen] @ x[chosen])
        return torch.stack([*new, attention[parts.others] @ x[parts.others]])


@dataclass(frozen=True)
class Parts:
    """Tokens of a view: V and T ascending, centres by decreasing attention, all others ascending."""

    visual: Tensor
    text: Tensor
    centres: Tensor
    others: Tensor

    @property
    def main(self) -> Tensor:
        """V and T in raster order."""
        return torch.cat([self.visual, self.text]).sort().values


def scaled(counts: tuple[int, int, int], limit: int, size: int, least: int) -> tuple[int, int, int]:
    """Counts in about the same proportion for `limit` of `size` tokens, including one more for the sum of the others; the
    first count is at least `least`."""
    if limit >= size:
        return size, 0, 0
    first, second, third = counts
    third = min(int((limit - 1) * third / sum(counts) + 0.5), limit - 2)
    main = limit - 1 - third if third > 0 else limit
    new = min(int(main * second / (first + second) + 0.5), main - min(least, main))
    return main - new, new, max(0, third)


def joint_attention(heads: EncoderAttention, patches: Tensor) -> Tensor:
    """Softmax of q_cls k^T / sqrt(H * d) over one view with its CLS token, all heads as one, at `patches` (indices into all
    patches of the encoder call, of one view), fp32 in their shape."""
    area = heads.bounds[1] - heads.bounds[0] - 1
    view = int(patches.flatten()[0]) // area
    start, stop = heads.stretches()[view]
    query, keys = heads.queries[:, start].float(), heads.keys[:, start:stop].float()
    logits = torch.einsum("hd,hnd->n", query, keys) / math.sqrt(query.numel())
    return logits.softmax(-1)[1:][patches - view * area]
