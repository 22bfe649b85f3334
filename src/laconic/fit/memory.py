"""What the trainings of learned memories share: contexts, a memory before the frozen model, the loss on its answers."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedModel

from laconic.fit.contract import TrainingFit
from laconic.fit.documents import DocumentReadings
from laconic.fit.losses import RightAnswers
from laconic.fit.schedules import warmup_cosine
from laconic.fit.slots import Reading, SlotReadings, has_facts
from laconic.memory.compressor import Compressor, embedded
from laconic.memory.lora import adapt
from laconic.memory.prefix import Prefix
from laconic.prompts.reader import tokenizer_of


@dataclass(kw_only=True)
class ContextFit(TrainingFit):
    """A network that makes memories of drawn contexts, trained so that the frozen model answers from them.

    A subclass gives `network` and `loss`.

    Args:
        keeps: shares of the context; every step draws one, and the artifact serves them all.
        lengths: of the contexts, in tokens; every step draws one.
        batch_size: contexts of a step.
        warmup: share of the steps before the peak of the cosine.
        segment: tokens of a segment.
        data: UTF-8 files, whose passages are the contexts and whose next tokens are learned; none: facts and questions for
            ``testbed/facts``, Python's documentation for other models. `following`: how many tokens of a passage's
            continuation are learned.
        ends: whether the end of an answer is learned, too; else the model ends its answers as it is.
        rank: of LoRA on the encoder; None: all its weights are trained. See `laconic.memory.lora`.
    """

    keeps: tuple[float, ...] = (0.5, 0.25)
    lengths: tuple[int, ...] = (16,)
    batch_size: int = 32
    steps: int = 1000
    lr: float = 2e-3
    clip: float | None = 1.0
    warmup: float = 0.03
    segment: int = 16
    data: tuple[str, ...] = ()
    following: int = 64
    ends: bool = False
    rank: int | None = None

    stored: ClassVar[torch.dtype] = torch.float16

    def __post_init__(self) -> None:
        super().__post_init__()
        self.end = -1
        """The token that ends a turn; -1: there is none."""

    def network(self, model: PreTrainedModel) -> Any:
        """What is trained."""
        raise NotImplementedError(f"{type(self).__name__} must define network().")

    def build(self, model: PreTrainedModel, tokenizer: Any) -> Any:
        self.model, self.tokenizer, self.readings = model, tokenizer, self._readings(tokenizer)
        self.right, self.end = RightAnswers(), self.readings.end
        self.compressor = self.adapted(self.network(model))
        return self.compressor

    def _readings(self, tokenizer: Any) -> SlotReadings | DocumentReadings:
        if "data" in self.unused or (not self.data and has_facts(tokenizer_of(tokenizer))):
            return SlotReadings(tokenizer)
        if tokenizer_of(tokenizer) is not tokenizer:
            raise ValueError(f"{self.method} is trained beside models that read text alone; give one without a processor.")
        readings = DocumentReadings(tokenizer, self.data, self.following)
        for length in self.lengths:
            readings.check(length + self.following)
        return readings

    def adapted(self, network: Any) -> Any:
        """The network, whose encoder is trained as a whole or by LoRA."""
        return adapt(network, self.rank) if self.rank else network

    def rate(self, step: int) -> float:
        return warmup_cosine(step, self.steps, self.warmup)

    def batch(self, step: int) -> tuple[Reading, float]:
        return self.drawn(step)

    def drawn(self, step: int, copying: bool = False) -> tuple[Reading, float]:
        """Contexts, and the share of soft tokens."""
        rng = random.Random(f"{self.seed}-{step}")
        keep, facts = rng.choice(self.keeps), rng.choice(self.lengths)
        drawn = self.readings.draw(rng, self.batch_size, facts, copying)
        if not self.ends:
            drawn = replace(drawn, learned=drawn.learned & (drawn.rest != self.end))
        return drawn.to(self.model.device), keep

    def scored(self, logits: Tensor, wanted: Tensor) -> Tensor:
        """Cross-entropy of the right tokens [N] under `logits` [N, V], which are counted for the log; ends are not."""
        answers = wanted != self.end
        self.right.note(logits[answers].argmax(-1) == wanted[answers])
        return F.cross_entropy(logits, wanted)

    def progress(self) -> str:
        return self.right.told()

    def facts(self) -> dict[str, Any]:
        return {"keeps": list(self.keeps), "segment": self.segment, "rank": self.rank}


@dataclass(kw_only=True)
class MemoryFit(ContextFit):
    """A network that makes soft tokens. A subclass gives `network`, a `Compressor`; it may change `loss`."""

    def build(self, model: PreTrainedModel, tokenizer: Any) -> Compressor:
        network: Compressor = super().build(model, tokenizer)
        self._match()
        return network

    @torch.no_grad()
    def _match(self) -> None:
        """Begin with soft tokens as long as the embeddings of the context."""
        reading, keep = self.batch(0)
        whole = self.compressor.to(self.model.device).contexts(self.model, reading.context, keep)
        self.compressor.gain.mul_(embedded(self.model, reading.context).norm(dim=-1).mean() / whole.norm(dim=-1).mean())

    def loss(self, batch: tuple[Reading, float]) -> Tensor:
        reading, keep = batch
        return self.answer_loss(reading, self.compressor.contexts(self.model, reading.context, keep))

    def answer_loss(self, reading: Reading, soft: Tensor) -> Tensor:
        """Cross-entropy of what is learned after the soft tokens [B, m, d]."""
        return self.scored(*predicted(self.model, reading, soft))


@dataclass(kw_only=True)
class PrefixFit(ContextFit):
    """A network that makes keys and values. A subclass gives `network`, a `PrefixCompressor`; it may change `loss`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.following < 2:
            raise ValueError(f"{self.method}: following=1: the first token after a prefix is not learned; give 2 or more.")

    def loss(self, batch: tuple[Reading, float]) -> Tensor | Iterable[Tensor]:
        reading, keep = batch
        prefix = self.compressor(self.model, reading.opening, reading.context, keep)
        return self.scored(*predicted_after(self.model, reading, prefix))


def mixed(model: PreTrainedModel, reading: Reading, soft: Tensor) -> Tensor:
    """Embeddings of opening, soft tokens [B, m, d] and rest, in the model's type."""
    batch = len(soft)
    parts = [embedded(model, reading.opening.expand(batch, -1)), soft, embedded(model, reading.rest)]
    return torch.cat(parts, 1).to(model.dtype)


def predicted(model: PreTrainedModel, reading: Reading, soft: Tensor) -> tuple[Tensor, Tensor]:
    """Logits of all that is learned [N, V], and the right tokens [N], when soft tokens [B, m, d] stand for the context."""
    parts: Any = model
    hidden = parts.model(inputs_embeds=mixed(model, reading, soft), use_cache=False).last_hidden_state
    before = hidden[:, -reading.rest.shape[1] - 1 : -1]  # the states that predict each token of the rest
    return parts.lm_head(before[reading.learned]).float(), reading.rest[reading.learned]


def predicted_after(model: PreTrainedModel, reading: Reading, prefix: Prefix) -> tuple[Tensor, Tensor]:
    """The same when keys and values stand for opening and context. The first token of the rest is not among what is
    learned: nothing before it is read again."""
    parts: Any = model
    rows, tokens = reading.rest.shape
    hidden = parts.model(
        input_ids=reading.rest,
        past_key_values=prefix.cache(model.dtype),
        position_ids=prefix.after(tokens).expand(rows, -1),
        use_cache=True,
    ).last_hidden_state
    later = reading.learned[:, 1:]
    return parts.lm_head(hidden[:, :-1][later]).float(), reading.rest[:, 1:][later]
