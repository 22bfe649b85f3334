"""Fitting KVzap: what the repetition of a text takes from each entry, and the map that predicts it (arXiv 2601.07891)."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from laconic.cache.hidden import HiddenSeam
from laconic.cache.observe import Observation
from laconic.cache.replay import INSTRUCTION
from laconic.cache.seam import EntriesSeam
from laconic.families import family_of
from laconic.fit.contract import Fit
from laconic.fit.layer_probe import LayerProbe
from laconic.fit.passages import passage
from laconic.methods.cache.kvzap.network import Descent, Ridge, sizes, some
from laconic.prompts.text import build
from laconic.seams import Seam
from laconic.session import compress

LEAST = 1e-12
"""Of a score, before its logarithm is taken."""


@dataclass(kw_only=True)
class KVzapFit(Fit):
    """Texts of Python's documentation, of which evaluation reads other documents, each repeated by the model once.

    Args:
        texts: to fit on (64; published: 2,400). `checked`: further ones, for R^2 and the thresholds (8).
        tokens: of a text (1,000). Scores depend on it, so all have about the same (published: 750 to 1,250).
        width: units of the MLP's hidden layer (published: an eighth of the model's); 0: a linear map.
        pull: weight of the ridge regression (1). `sampled`: tokens of a text that an MLP is trained on (500).
        epochs, batch, lr: of that training.
    """

    texts: int = 64
    checked: int = 8
    tokens: int = 1000
    width: int = 0
    pull: float = 1.0
    sampled: int = 500
    epochs: int = 15
    batch: int = 512
    lr: float = 5e-3

    method: ClassVar[str] = "kvzap"
    may_be_zero: ClassVar[tuple[str, ...]] = ("seed", "width")

    def facts(self) -> dict[str, Any]:
        shape = sizes(self.model)
        learner: Ridge | Descent = Ridge(*shape, self.pull)
        if self.width:
            learner = Descent(*shape, self.width, self.epochs, self.batch, self.lr)
        for number in range(self.texts):
            rng = random.Random(f"{self.seed}-{number}")
            for layer, x, y in self.pairs(number):
                rows = some(rng, len(x), self.sampled if self.width else len(x))
                learner.add(layer, x[list(rows)], y[list(rows)])
            if (number + 1) % 8 == 0:
                self.note(f"{number + 1} of {self.texts} texts repeated")
        self.surrogate = learner.fitted()
        return self._checked()

    def tensors(self) -> dict[str, Tensor]:
        """Those of `Surrogate`."""
        return {name: x.detach().contiguous() for name, x in self.surrogate.state_dict().items()}

    def _checked(self) -> dict[str, Any]:
        """R^2 of every head and the thresholds for shares of 1 to 99 %, on texts that nothing was fitted on."""
        found: list[list[tuple[Tensor, Tensor]]] = [[] for _ in range(sizes(self.model)[0])]
        for number in range(self.texts, self.texts + self.checked):
            for layer, x, y in self.pairs(number):
                found[layer].append((self.surrogate(x, layer), y))
        guess, truth = (torch.stack([torch.cat([pair[i] for pair in layer]) for layer in found]) for i in (0, 1))
        spread = (truth - truth.mean(1, keepdim=True)).square().sum(1).clamp(min=1e-12)
        r2 = 1 - (truth - guess).square().sum(1) / spread  # [layers, heads]
        levels = torch.arange(0.99, 0.005, -0.01, dtype=torch.float64)
        thresholds = torch.quantile(guess.flatten().double(), levels)
        self.note(f"R^2 on {self.checked} other texts: {float(r2.mean()):.3f}, worst head {float(r2.min()):.3f}")
        return {
            "r2": round(float(r2.mean()), 4),
            "r2_by_head": [[round(x, 3) for x in row] for row in r2.tolist()],
            "thresholds": [round(x, 4) for x in thresholds.tolist()],
            "reads": "input of the attention, after the layer's norm",
        }

    def pairs(self, number: int) -> Iterator[tuple[int, Tensor, Tensor]]:
        """Of text `number`, per compressed layer: what its tokens are to the attention [n, hidden], and ``log s+`` [n, Hkv].

        ``s+ = max over the repeated tokens t and the group's heads h of A_h[t, j] ||W_O^h v_j|| / ||x_t||``.
        """
        model, tokenizer = self.model, self.tokenizer
        prompt = build(tokenizer, passage(tokenizer, self.tokens, f"{self.seed}-{number}"))
        text = slice(prompt.opening, len(prompt.context))
        ask = INSTRUCTION.rstrip() if prompt.templated else INSTRUCTION
        asked = tokenizer.encode(ask, add_special_tokens=False) + (prompt.question if prompt.templated else [])
        ids = torch.tensor([prompt.context + asked + prompt.context[text]], device=model.device)
        family, found = family_of(model), []
        layers = family.layers(model)

        def look(obs: Observation) -> None:
            assert obs.hidden is not None
            x = obs.hidden.normalised[0].float()
            repeated = text.stop - text.start
            rows = obs.window(repeated)[0, ..., text]  # [Hkv, G, repeated, n]
            gram = family.output_gram(layers[obs.decoder_layer]).unflatten(0, rows.shape[:2])
            values = obs.values[0, :, None, text].float()
            size = (values @ gram * values).sum(-1).clamp(min=0).sqrt()  # ||W_O^h v||, [Hkv, G, n]
            length = torch.linalg.vector_norm(x[-repeated:], dim=-1)
            score = ((rows / length[:, None]).amax(2) * size).amax(1)
            found.append((obs.layer, x[text].clone(), score.clamp(min=LEAST).log().T))

        with torch.no_grad(), compress(model, _HiddenProbe(prefill=look)):
            model(input_ids=ids, logits_to_keep=1)
        yield from found


@dataclass(kw_only=True)
class _HiddenProbe(LayerProbe):
    """Sees hidden states, too."""

    seams: ClassVar[tuple[type[Seam], ...]] = (EntriesSeam, HiddenSeam)
