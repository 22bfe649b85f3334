"""Which words mark the sinks and the dead among a model's visual tokens, found from what repeats from image to image.

The paper gives three words for LLaVA-1.5-7B; how to find those of another model is inferred from the paper's analysis.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from laconic.artifact import Artifact
from laconic.methods.lens.embedlens.readings import ALIVE, CLASSES, Anchors, look, nearest, shares, words_of

SINK, DEAD, REPEATS = 0.99, 0.9, 0.9
"""Cosines above which two tokens are the same sink or the same dead token; share of the other images that must have it."""
OUTLIER = 3.0
"""A patch whose encoder feature is this many times longer than the median of its image made a sink of the encoder."""
LLM_LAYER = 1
"""Sinks of the LLM point where <bos> points after the MLP of this layer (from 0)."""


@dataclass(frozen=True)
class ImageTokens:
    """The visual tokens of one image.

    Attributes:
        tokens: after the projector, [N, D]. `words`: their three nearest words, [N, 3].
        outlier: whether the encoder feature has an outlying length, bool [N].
        bos: cosine to the first token of the prompt after layer `LLM_LAYER`, [N].
    """

    tokens: Tensor
    words: Tensor
    outlier: Tensor
    bos: Tensor


def collect(model: PreTrainedModel, prompts: Sequence[Mapping[str, Tensor]]) -> list[ImageTokens]:
    """The images of model inputs, several per prompt or one; prompts begin with <bos> (apart from padding)."""
    images = []
    for inputs in prompts:
        visual, hidden = look(model, inputs, [0, LLM_LAYER + 1])
        mask = inputs.get("attention_mask")
        for span in visual.spans:
            tokens = hidden[0][span.row, span.tokens].float()
            length = visual.pool(span, visual.patches(span).float().norm(dim=-1))
            first = 0 if mask is None else int(mask[span.row].argmax())
            later = hidden[LLM_LAYER + 1][span.row].float()
            cosine = nn.functional.cosine_similarity(later[span.tokens], later[first][None], dim=-1)
            words = nearest(tokens, words_of(model))[1]
            images.append(ImageTokens(tokens, words, length > OUTLIER * length.median(), cosine))
    return images


def recurrence(tokens: Sequence[Tensor], cosine: float) -> list[Tensor]:
    """For every token of every image ([N_i, D] each, unit length): the share of the other images that have a token
    within `cosine` of it, [N_i] each."""
    found = []
    for i, own in enumerate(tokens):
        count = own.new_zeros(len(own))
        for j, other in enumerate(tokens):
            if i != j:
                count += ((own @ other.mT).amax(1) > cosine).float()
        found.append(count / max(1, len(tokens) - 1))
    return found


def groups(tokens: Tensor, cosine: float) -> list[Tensor]:
    """Tokens [n, D] of unit length as groups within `cosine` of their first member: row numbers, the largest group first."""
    left, found = torch.arange(len(tokens), device=tokens.device), []
    while len(left):
        near = tokens[left] @ tokens[left[0]] > cosine
        near[0] = True
        found.append(left[near])
        left = left[~near]
    return sorted(found, key=len, reverse=True)


def clustered(images: Sequence[ImageTokens]) -> tuple[Anchors, Tensor]:
    """The anchors, and the classes of all tokens according to the clusters, [sum of N].

    Sinks: tokens that (nearly) all images have, within a cosine of `SINK`; those of the encoder where most members have
    outlying lengths, those of the LLM where most point like <bos>; sinks that are neither stay unmarked. Dead: the largest
    group that (nearly) all images have within `DEAD`. The anchor of a group is the word most frequent among its
    members' nearest three; of equally frequent words, the nearer one.
    """
    units = [nn.functional.normalize(p.tokens.float(), dim=-1) for p in images]
    every, words = torch.cat(units), torch.cat([p.words for p in images])
    outlier, bos = torch.cat([p.outlier for p in images]).float(), torch.cat([p.bos for p in images])
    kinds = torch.full((len(every),), ALIVE)
    anchors: dict[str, list[int]] = {name: [] for name in CLASSES[:ALIVE]}

    def mark(members: Tensor, name: str) -> None:
        kinds[members] = CLASSES.index(name)
        near = words[members]
        rank = torch.arange(near.shape[1], device=near.device).expand_as(near) / (near.shape[1] * near.numel())
        anchor = int(near.flatten().bincount((1 - rank).flatten()).argmax())  # equal counts go to the nearer word
        if anchor not in anchors[name]:
            anchors[name].append(anchor)

    sink = torch.cat(recurrence(units, SINK)) >= REPEATS
    for group in groups(every[sink], SINK):
        members = sink.nonzero()[:, 0][group]
        if len(members) < REPEATS * len(images):
            continue
        if float(outlier[members].mean()) > 0.5:
            mark(members, "vit_sink")
        elif float((bos[members] > 0.9).float().mean()) > 0.5:
            mark(members, "llm_sink")
    dull = ~sink & (torch.cat(recurrence(units, DEAD)) >= REPEATS)
    if bool(dull.any()):
        mark(dull.nonzero()[:, 0][groups(every[dull], DEAD)[0]], "dead")
    return Anchors.of(anchors), kinds


def discover(model: PreTrainedModel, prompts: Sequence[Mapping[str, Tensor]]) -> Artifact:
    """The anchors of a model, from at least 32 different images, as an artifact for ``EmbedLens(artifact=FILE)``.

    `settings` has the shares of the classes over the images (mean and deviation), and how often the anchors, a cheap
    approximation, agree with the clusters that they came from.

    Raises:
        ValueError: fewer than two images.
    """
    images = collect(model, prompts)
    if len(images) < 2:
        raise ValueError(f"{len(images)} images: what repeats from image to image needs several; give 32 or more.")
    anchors, kinds = clustered(images)
    by_anchor = torch.cat([anchors.classify(p.words) for p in images])
    found = shares(kinds.split([len(p.tokens) for p in images]))
    made = {
        "images": len(images),
        "agreement": float((by_anchor == kinds).float().mean()),
        "shares": dict(zip(CLASSES, found.mean.tolist(), strict=True)),
        "deviations": dict(zip(CLASSES, found.deviation.tolist(), strict=True)),
    }
    data = {name: list(getattr(anchors, name)) for name in CLASSES[:ALIVE]}
    return Artifact.of("embedlens", "measured", model, data, settings=made)
