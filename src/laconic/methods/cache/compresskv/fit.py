"""Measuring for CompressKV: which heads look at the whole answer, how much each layer suffers (arXiv 2508.02401, A-B)."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from transformers import PreTrainedModel

from laconic.cache.heads import shape
from laconic.cache.observe import Observation
from laconic.errors import ArtifactError, UnsupportedModelError
from laconic.families import family_of
from laconic.fit.contract import Fit
from laconic.fit.layer_probe import LayerProbe, greedy
from laconic.fit.needles import Trial, trials
from laconic.methods.cache.compresskv.method import CompressKV
from laconic.ops.attend import attend

EPS = 1e-5


@dataclass(kw_only=True)
class CompressKVFit(Fit):
    """Needle prompts answered greedily, first to score heads, then to measure layers.

    Args:
        lengths: tokens of the prompts (published: 20 lengths from 1,000 to 50,000).
        depths: how many depths, from 0 to 100 % (published: 10).
        needles: prompts per length and depth (published: 3).
        answer_tokens: longest answer (50).
        entries: entries of every layer while its error is measured (32).
    """

    lengths: tuple[int, ...] = (256, 512, 1024)
    depths: int = 5
    needles: int = 3
    answer_tokens: int = 50
    entries: int = 32

    method: ClassVar[str] = "compresskv"

    def facts(self) -> dict[str, Any]:
        model, tokenizer = self.model, self.tokenizer
        prompts = list(trials(tokenizer, self.lengths, self.depths, self.needles, self.seed))
        found = HeadScores()
        for prompt in prompts:
            found.add(*watched(model, tokenizer, prompt, self.answer_tokens))
        self.note(f"{found.counted} of {len(prompts)} needles answered; their heads are scored")
        scores = found.mean(len(prompts))
        order = scores.argsort(dim=-1, descending=True, stable=True).tolist()
        errors = layer_errors(model, tokenizer, prompts, order, self.entries, self.answer_tokens)
        self.note("layer errors: " + " ".join(f"{e:.3f}" for e in errors))
        rounded = [[round(score, 4) for score in row] for row in scores.tolist()]
        trials_found = {"needles": len(prompts), "answered": found.counted}
        return {"heads": order, "layer_errors": [round(e, 5) for e in errors], "scores": rounded, "trials": trials_found}


@dataclass
class HeadScores:
    """Step A: the mean, over the trials that were answered, of the span mass at the steps whose token is in the span."""

    total: torch.Tensor | float = 0.0
    counted: int = 0

    def add(self, masses: torch.Tensor, tokens: Sequence[int], prompt: Trial, response: str) -> None:
        """One trial.

        Args:
            masses: attention on the answer's positions by the query that predicts each token, [T, layers, H].
            tokens: the T tokens of the response.
        """
        if recall(response, prompt.answer) <= 0.5:
            return
        ids = {prompt.ids[j] for j in prompt.span}
        inside = torch.tensor([token in ids for token in tokens], dtype=masses.dtype, device=masses.device)
        self.total = self.total + (masses * inside[:, None, None]).sum(0)
        self.counted += 1

    def mean(self, trials: int) -> torch.Tensor:
        """Scores [layers, H]; raises `ArtifactError` when no trial was answered."""
        if not self.counted:
            raise ArtifactError(
                f"the model answered none of {trials} needle prompts, so its retrieval heads cannot be identified; "
                "try shorter lengths, or a model that follows questions."
            )
        assert isinstance(self.total, torch.Tensor)
        return self.total / self.counted


def recall(response: str, answer: str) -> float:
    """ROUGE-1 recall: the share of the answer's words that the response has."""
    said, wanted = (Counter(re.findall(r"\w+", text.lower())) for text in (response, answer))
    return sum((said & wanted).values()) / max(1, sum(wanted.values()))


def watched(model: PreTrainedModel, tokenizer: Any, prompt: Trial, most: int) -> tuple[torch.Tensor, list[int], Trial, str]:
    """The greedy answer to one prompt and, for each of its tokens, what every head saw of the span: [T, layers, H]."""
    now: dict[int, torch.Tensor] = {}
    span = torch.tensor(prompt.span, device=model.device)

    def look(obs: Observation) -> None:
        now[obs.layer] = obs.last()[0].flatten(0, 1).index_select(-1, span).sum(-1)

    tokens, masses = [], []
    for token in greedy(model, tokenizer, prompt.ids, LayerProbe(token=look), most):
        tokens.append(token)
        masses.append(torch.stack([now[layer] for layer in sorted(now)]))
    layers, heads, _ = shape(model)
    mass = torch.stack(masses) if masses else torch.zeros(0, layers, heads)
    return mass, tokens, prompt, tokenizer.decode(tokens)


def layer_errors(
    model: PreTrainedModel, tokenizer: Any, prompts: Iterable[Trial], heads: list[list[int]], entries: int, most: int
) -> list[float]:
    """Step B: how far each layer's output moves when its cache is cut to `entries`, as shares that add up to 1.

    Prompts of one length are one data set: errors are summed in it, normalised, averaged over the sets, normalised again.
    """
    by_length: dict[int, LayerErrors] = {}
    for prompt in prompts:
        meter = by_length.setdefault(prompt.length, LayerErrors(model, heads, entries))
        for _ in greedy(model, tokenizer, prompt.ids, LayerProbe(prefill=meter.cut, token=meter.compare), most):
            pass
    shares = torch.stack([meter.shares() for meter in by_length.values()]).mean(0)
    return (shares / shares.sum().clamp(min=1e-12)).tolist()


@dataclass
class LayerErrors:
    """Compares the attention output of a cut cache with the full one's, from the same hidden state."""

    model: PreTrainedModel
    heads: list[list[int]]
    entries: int
    kept: dict[int, torch.Tensor] = field(default_factory=dict)
    sums: dict[int, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.method = CompressKV(tokens=self.entries, heads=self.heads)
        self.method.attach(self.model)
        self.layers = family_of(self.model).stack(self.model).layers

    def cut(self, obs: Observation) -> None:
        """After the prompt: choose what a cache of `entries` would hold; nothing is removed."""
        targets = [min(self.entries, real) for real in obs.real]
        selection = self.method.select(replace(obs, targets=targets))
        n = obs.keys.shape[2]
        self.kept[obs.layer] = torch.arange(n, device=obs.keys.device) if selection is None else selection.index[0, 0]
        self._prompt = n

    def compare(self, obs: Observation) -> None:
        """``||O_cut - O_full|| / (||O_full|| + eps)`` of the token just decoded, O after the output projection."""
        new = torch.arange(self._prompt, obs.keys.shape[2], device=obs.keys.device)
        stays = torch.cat([self.kept[obs.layer], new])
        full, cut = (
            self._projected(obs, attend(obs.queries, k, v, obs.scale, softcap=obs.softcap)[0])
            for k, v in ((obs.keys, obs.values), (obs.keys[:, :, stays], obs.values[:, :, stays]))
        )
        error = float((cut - full).norm() / (full.norm() + EPS))
        self.sums[obs.layer] = self.sums.get(obs.layer, 0.0) + error

    def _projected(self, obs: Observation, out: torch.Tensor) -> torch.Tensor:
        """out [B, H, 1, Dv] through the layer's output projection."""
        attention = getattr(self.layers[obs.decoder_layer], "self_attn", None)  # type: ignore[index]
        project = getattr(attention, "o_proj", None)
        if project is None:
            raise UnsupportedModelError(
                f"{type(self.model).__name__} has no self_attn.o_proj in its layers, so layer errors cannot be measured."
            )
        return project(out.transpose(1, 2).flatten(2)).float()

    def shares(self) -> torch.Tensor:
        """Errors of the layers, adding up to 1 (all zero when nothing moved)."""
        errors = torch.tensor([self.sums.get(layer, 0.0) for layer in range(len(self.heads))])
        return errors / errors.sum().clamp(min=1e-12)
