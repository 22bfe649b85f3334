"""Training of a cartridge: the frozen model with the prefix is to answer as it does with the document."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor
from transformers import PreTrainedModel

from laconic.families import family_of
from laconic.fit.contract import TrainingFit
from laconic.measure.cost import Shape
from laconic.memory.prefix import check_holds_prefixes, read
from laconic.methods.memory.cartridge.network import TrainedPrefix
from laconic.methods.memory.cartridge.study import Exchange, Study
from laconic.prompts.files import read_text
from laconic.prompts.text import PromptError, build


@dataclass(kw_only=True)
class CartridgeFit(TrainingFit):
    """Keys and values for one document, from what the model says about it.

    Args:
        data: the document, a UTF-8 file.
        keep: entries, as a share of the tokens of opening and document.
        frozen: entries at the beginning that are not trained.
        exchanges: questions with answers that the model makes up; the last eighth is held out.
        pieces: tokens of the shortest and the longest piece of the document that a question is about.
        requests: a file of questions, one a line, for models that cannot write any; empty: the model writes them.
        request_tokens, answer_tokens: longest question, and longest answer.
        top: probabilities that are kept of every token of an answer.
        batch_size: exchanges of a step.
    """

    data: str = ""
    keep: float = 0.05
    frozen: int = 1
    exchanges: int = 64
    pieces: tuple[int, ...] = (512, 2048)
    requests: str = ""
    request_tokens: int = 48
    answer_tokens: int = 96
    top: int = 20
    batch_size: int = 4
    steps: int = 400
    lr: float = 1e-2
    clip: float | None = 1.0

    method: ClassVar[str] = "cartridge"
    may_be_zero: ClassVar[tuple[str, ...]] = ("seed", "frozen")
    stored: ClassVar[torch.dtype] = torch.float16

    def build(self, model: PreTrainedModel, tokenizer: Any) -> TrainedPrefix:
        if not self.data:
            raise PromptError("cartridge: there is no document; give one with --data FILE.")
        check_holds_prefixes(model, self.method)
        self.model, self.tokenizer = model, tokenizer
        prompt = build(tokenizer, read_text(Path(self.data)), "?")
        self.opening, self.ids = prompt.context[: prompt.opening], prompt.context[prompt.opening :]
        if not self.ids:
            raise PromptError(f"cartridge: {self.data} is empty; there is nothing to study.")
        self.entries = max(self.frozen + 1, math.ceil(self.keep * len(prompt.context) - 1e-9))
        if self.entries > len(prompt.context):
            raise ValueError(
                f"cartridge: keep={self.keep}: {len(prompt.context)} tokens cannot fill {self.entries} entries."
            )
        with torch.no_grad():
            first = read(model, torch.tensor([prompt.context[: self.entries]], device=model.device))
        self.trained = TrainedPrefix.of(first, self.frozen)
        return self.trained

    def prepare(self, folder: Path | None, resume: bool) -> None:
        requests = [line for line in read_text(Path(self.requests)).splitlines() if line] if self.requests else []
        self.study = Study(self.model, self.tokenizer, self.ids, self.pieces, requests, self.seed, folder)
        if resume:
            self.study.load()
        for made in self.study.run(self.exchanges, self.request_tokens, self.answer_tokens, self.top):
            if made % 8 == 0 or made == self.exchanges:
                self.note(f"{made} of {self.exchanges} exchanges {self.study.seconds:.0f} s")
        held = 0 if requests else self.exchanges // 8
        self.learned = self.study.exchanges[: self.exchanges - held]
        self.held_out = self.study.exchanges[self.exchanges - held :]

    def batch(self, step: int) -> list[Exchange]:
        """The next exchanges of an order that is drawn anew whenever all were seen."""
        size = len(self.learned)
        found = []
        for i in range(step * self.batch_size, (step + 1) * self.batch_size):
            order = random.Random(f"{self.seed}-{i // size}").sample(range(size), size)
            found.append(self.learned[order[i % size]])
        return found

    def loss(self, batch: list[Exchange]) -> Tensor:
        return divergence(self.model, self.trained, batch)

    @torch.no_grad()
    def progress(self) -> str:
        if not self.held_out:
            return ""
        return f"held out {float(divergence(self.model, self.trained, self.held_out)):.4f}"

    def facts(self) -> dict[str, Any]:
        shape = Shape.of(self.model, family_of(self.model).stack(self.model))
        tokens = sum(len(one.question) + len(one.answer) for one in self.learned) / len(self.learned)
        each = tokens * shape.decode_flops([self.entries + round(tokens / 2)] * shape.layers)
        return {
            "ids": self.ids,
            "opening": self.opening,
            "entries": self.entries,
            "frozen": self.frozen,
            "keeps": [self.entries / (len(self.opening) + len(self.ids))],
            "seconds": round(self.study.seconds + self.seconds, 1),
            # forward, and backward through activations alone: no gradient is taken for the model's weights
            "flops": round(self.study.flops(shape) + 2 * self.steps * self.batch_size * each),
        }


def divergence(model: PreTrainedModel, trained: TrainedPrefix, exchanges: list[Exchange]) -> Tensor:
    """KL(with the document || with the prefix) over the kept probabilities, mean over all tokens of the answers.

    Rows are padded on the right, where nothing that counts can see it.
    """
    device, rows = model.device, len(exchanges)
    lines = [torch.cat([one.question, one.answer[:-1]]) for one in exchanges]
    ids = torch.nn.utils.rnn.pad_sequence(lines, batch_first=True).to(device)
    prefix = trained.prefix(rows)
    parts: Any = model
    hidden = parts.model(
        input_ids=ids,
        past_key_values=prefix.cache(model.dtype),
        position_ids=prefix.after(ids.shape[1]).expand(rows, -1),
        use_cache=True,
    ).last_hidden_state
    at = [slice(len(one.question) - 1, len(one.question) - 1 + len(one.answer)) for one in exchanges]
    states = torch.cat([hidden[row, where] for row, where in enumerate(at)])
    log_q = parts.lm_head(states).float().log_softmax(-1)
    top, log_p = (torch.cat([getattr(one, name) for one in exchanges]).to(device) for name in ("top", "log_p"))
    return (log_p.exp() * (log_p - log_q.gather(1, top))).sum(-1).mean()
