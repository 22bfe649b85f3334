"""Training of CoLaR: a model that thinks in words learns to think in blocks of them; then it learns from its own answers."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel

from laconic.artifact import Artifact
from laconic.fit.chains import IGNORED, Solution, Solutions
from laconic.fit.contract import TrainingFit
from laconic.fit.grpo import advantages
from laconic.fit.schedules import warmup_cosine
from laconic.methods.reasoning.colar.method import BEGIN, SPEED
from laconic.methods.reasoning.colar.network import block_labels, drawn, log_density, merged
from laconic.methods.reasoning.colar.policy import policy_loss, roll_out
from laconic.methods.reasoning.colar.thinker import LatentThinker
from laconic.tasks.reasoning.chains import MARK, answer_in

LONGEST = 8
"""Most tokens of an answer that is drawn, its mark and its end included."""


@dataclass(frozen=True)
class Layout:
    """A batch as the model reads it: question and speed, vectors of the chain, mark and answer; padded on the right.

    Attributes:
        embeddings: [B, T, d]. `labels`: of each position itself, [B, T]: a token of each block, the answer's tokens.
        steps: positions from which the next vector is drawn: before the first block up to the last one, [B, T].
    """

    embeddings: Tensor
    labels: Tensor
    steps: Tensor


@dataclass(kw_only=True)
class CoLaRFit(TrainingFit):
    """Cross-entropy on one token of every block and on the answer, and the distance of drawn vectors from the next input.

    The second stage begins with the artifact of the first (`start`): answers are drawn, and right ones made likelier.

    Args:
        start: artifact of the first stage, trained with ``objective=nll``, which says how likely a vector is; None: this
            is the first stage.
        group: answers drawn for each problem in the second stage. `most`: their steps of thinking.
        speeds: tokens of a block; every step draws one of them.
        objective: "mse": of a drawn vector (the paper's for grade-school problems); "nll": negative log-density.
        width: of the head.
        batch_size: problems of a step.
        warmup: share of the steps before the peak of the cosine.
    """

    start: str | None = None
    group: int = 8
    most: int = 64
    steps: int = 800
    lr: float = 1e-3
    clip: float | None = 1.0
    speeds: tuple[int, ...] = (1, 2, 3, 4, 5)
    objective: Literal["mse", "nll"] = "mse"
    width: int = 256
    batch_size: int = 64
    warmup: float = 0.03

    method: ClassVar[str] = "colar"

    def build(self, model: PreTrainedModel, tokenizer: Any) -> LatentThinker:
        self.model, self.tokenizer = model, tokenizer
        self.solutions = Solutions(tokenizer, {"terse": 1.0})
        self.terms: list[tuple[float, float]] = []
        before = None if self.start is None else self._first_stage(model)
        self.thinker = LatentThinker(model, self.width if before is None else before.data["width"])
        if before is not None:
            self.thinker.load_state_dict({name: x.float() for name, x in before.tensors.items()})
        return self.thinker

    def _first_stage(self, model: PreTrainedModel) -> Artifact:
        found = Artifact.find(self.method, model, self.start)
        if found.settings["objective"] != "nll":
            raise ValueError(
                f"colar: start={self.start!r} was trained with objective={found.settings['objective']}, which teaches no "
                "deviations, so that nothing says how likely a drawn vector was; train the first stage with objective=nll."
            )
        if unknown := set(self.speeds) - set(found.data["speeds"]):
            raise ValueError(f"colar: speeds={sorted(unknown)} are not among those of start, {found.data['speeds']}.")
        return found

    def rate(self, step: int) -> float:
        return warmup_cosine(step, self.steps, self.warmup)

    def batch(self, step: int) -> tuple[list[Solution], int]:
        rng = random.Random(f"colar-{self.seed}-{step}")
        speed = rng.choice(self.speeds)
        return self.solutions.draw(rng, self.batch_size), speed

    def layout(self, solutions: list[Solution], speed: int) -> Layout:
        """The inputs of a batch at one speed."""
        device, opening = self.model.device, self.tokenizer.convert_tokens_to_ids([SPEED, str(speed), BEGIN])
        chains = [torch.tensor(x.thought, device=device) for x in solutions]
        ids = pad_sequence(chains, batch_first=True)
        real = pad_sequence([torch.ones_like(x) for x in chains], batch_first=True)
        with torch.no_grad():
            vectors, count = merged(self.thinker.embedded(ids), real, speed)
            labels = block_labels(ids, real, speed)
            rows, wanted, steps = [], [], []
            for i, x in enumerate(solutions):
                before, blocks = torch.tensor(x.prompt + opening, device=device), int((count[i] > 0).sum())
                answer = torch.tensor(x.answer, device=device)
                rows.append(torch.cat([self.thinker.embedded(before), vectors[i, :blocks], self.thinker.embedded(answer)]))
                wanted.append(torch.cat([torch.full_like(before, IGNORED), labels[i, :blocks], answer]))
                at = torch.arange(len(rows[-1]), device=device)
                steps.append((at >= len(before) - 1) & (at < len(before) + blocks))
            return Layout(
                pad_sequence(rows, batch_first=True),
                pad_sequence(wanted, batch_first=True, padding_value=IGNORED),
                pad_sequence(steps, batch_first=True),
            )

    def loss(self, batch: tuple[list[Solution], int]) -> Tensor:
        return self.explored(*batch) if self.start else self.supervised(*batch)

    def explored(self, solutions: list[Solution], speed: int) -> Tensor:
        """The loss of the second stage: 1 for a right answer, 0 for another, in comparison with its group."""
        opening = self.tokenizer.convert_tokens_to_ids([SPEED, str(speed), BEGIN])
        prompts = [x.prompt + opening for x in solutions for _ in range(self.group)]
        mark, end = self.tokenizer.convert_tokens_to_ids(MARK), self.tokenizer.eos_token_id
        rows = roll_out(self.thinker, prompts, mark, end, self.most, LONGEST)
        said = self.tokenizer.batch_decode([x.answer for x in rows], skip_special_tokens=True)
        gold = [x.problem.answer for x in solutions for _ in range(self.group)]
        right = torch.tensor([float(answer_in(x) == answer) for x, answer in zip(said, gold, strict=True)])
        self.terms.append((float(right.mean()), sum(len(x.vectors) for x in rows) / len(rows)))
        gain = advantages(right.view(-1, self.group)).flatten().to(self.model.device)
        return policy_loss(self.thinker, rows, gain) if gain.any() else gain.sum()

    def supervised(self, solutions: list[Solution], speed: int) -> Tensor:
        """The loss of the first stage."""
        given = self.layout(solutions, speed)
        hidden = self.thinker.states(given.embeddings)[:, :-1]
        labels, steps = given.labels[:, 1:], given.steps[:, :-1]
        words = F.cross_entropy(self.thinker.logits(hidden[labels != IGNORED]), labels[labels != IGNORED])
        wanted = given.embeddings[:, 1:][steps] / self.thinker.deviation
        vectors = self.distance(wanted, *self.thinker.latent_head(hidden[steps]))
        self.terms.append((float(words.detach()), float(vectors.detach())))
        return words + vectors

    def distance(self, wanted: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
        """Of a drawn vector from the wanted one, or the latter's density, averaged over the d dimensions; [N, d] each."""
        if self.objective == "nll":
            return -log_density(wanted, mean, log_std).mean()
        return (drawn(mean, log_std) - wanted).square().mean()

    def progress(self) -> str:
        first, second = (sum(x) / len(x) for x in zip(*self.terms, strict=True))
        self.terms = []
        if self.start:
            return f"right {100 * first:.1f} % steps {second:.1f}"
        return f"words {first:.4f} vectors {second:.4f}"

    def facts(self) -> dict[str, Any]:
        return {"speeds": list(self.speeds), "width": self.thinker.width, "deviation": self.thinker.deviation}
