"""Self-study: the model asks itself about pieces of a document, answers, and its answers' probabilities are kept."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from transformers import PreTrainedModel

from laconic.atomic import replacing
from laconic.errors import ArtifactError
from laconic.measure.cost import Shape
from laconic.prompts.text import build

FILE = "study.safetensors"
TRIES = 8
"""How often a model may say nothing before its conversations are given up."""
SEEDS = (
    "Write one question about a single fact of the text above, such as a name, a number or a date. Write only the question.",
    "Write one request to list or to structure a part of the text above. Write only the request.",
    "Write one request to summarise a part of the text above. Write only the request.",
    "Write one question of somebody who needs the text above for a task at hand. Write only the question.",
    "Write one unusual question that the text above answers. Write only the question.",
)
"""What the model is asked to write: one of five kinds of request."""


@dataclass(frozen=True)
class Exchange:
    """A question with the answer that the model gave with the text in view.

    Attributes:
        question: ids of all that follows the document in the prompt, [q]. `answer`: ids, [a].
        top, log_p: ids of the most likely tokens at each token of the answer, and their log probabilities, [a, k].
    """

    question: Tensor
    answer: Tensor
    top: Tensor
    log_p: Tensor


class Study:
    """Exchanges about one document, as far as they are made.

    Args:
        ids: of the document. `sizes`: tokens of the shortest and the longest piece that a question is about.
        requests: asked in turn instead of what the model would write; empty: it writes.
        folder: where progress is kept; None: nowhere.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: Any,
        ids: list[int],
        sizes: tuple[int, ...],
        requests: list[str],
        seed: int,
        folder: Path | None = None,
    ):
        self.model, self.tokenizer, self.ids, self.requests, self.seed = model, tokenizer, ids, requests, seed
        self.shortest, self.longest = min(sizes[0], len(ids)), min(sizes[-1], len(ids))
        self.file = None if folder is None else folder / FILE
        self.exchanges: list[Exchange] = []
        self.seconds, self.read, self.written = 0.0, 0, 0

    def run(self, exchanges: int, request_tokens: int, answer_tokens: int, top: int) -> Iterator[int]:
        """Make what is missing of `exchanges`, and say how many there are after each."""
        while len(self.exchanges) < exchanges:
            began = time.perf_counter()
            self.exchanges.append(self._exchange(len(self.exchanges), request_tokens, answer_tokens, top))
            self.seconds += time.perf_counter() - began
            if self.file is not None and (len(self.exchanges) % 8 == 0 or len(self.exchanges) == exchanges):
                self._save(self.file)
            yield len(self.exchanges)

    @torch.no_grad()
    def _exchange(self, number: int, request_tokens: int, answer_tokens: int, top: int) -> Exchange:
        rng = random.Random(f"study-{self.seed}-{number}")
        torch.manual_seed(rng.getrandbits(32))
        size = rng.randint(self.shortest, self.longest)
        start = rng.randrange(len(self.ids) - size + 1)
        piece = self.tokenizer.decode(self.ids[start : start + size])
        if self.requests:
            request = self.requests[number % len(self.requests)]
        else:
            request = self._request(piece, rng, request_tokens)
        prompt = build(self.tokenizer, piece, request)
        out = self._generate(prompt.ids, answer_tokens, do_sample=False, temperature=None, top_p=None, top_k=None)
        log_p = torch.stack([step[0] for step in out.logits]).float().log_softmax(-1)
        best = log_p.topk(min(top, log_p.shape[-1]))
        answer = out.sequences[0, prompt.tokens :]
        return Exchange(torch.tensor(prompt.question), answer.cpu(), best.indices.cpu(), best.values.cpu())

    def _request(self, piece: str, rng: random.Random, tokens: int) -> str:
        for _ in range(TRIES):
            prompt = build(self.tokenizer, piece, rng.choice(SEEDS))
            out = self._generate(prompt.ids, tokens, do_sample=True, temperature=0.6, top_p=None, top_k=None)
            said = self.tokenizer.decode(out.sequences[0, prompt.tokens :], skip_special_tokens=True).strip()
            if said:
                return str(said.splitlines()[0])
        raise ArtifactError(
            f"this model wrote no question in {TRIES} tries, so it cannot study alone; give it requests=FILE, one a line."
        )

    def _generate(self, ids: list[int], tokens: int, **how: Any) -> Any:
        given = torch.tensor([ids], device=self.model.device)
        model: Any = self.model
        out = model.generate(
            given,
            attention_mask=torch.ones_like(given),
            max_new_tokens=tokens,
            pad_token_id=self.tokenizer.pad_token_id or 0,
            return_dict_in_generate=True,
            output_logits=True,
            **how,
        )
        self.read, self.written = self.read + len(ids), self.written + out.sequences.shape[1] - len(ids)
        return out

    def flops(self, shape: Shape) -> int:
        """What the study took, as if every token had seen half a piece."""
        tokens, half = self.read + self.written, (self.shortest + self.longest) // 4
        return tokens * shape.decode_flops([half] * shape.layers)

    # -- its file --------------------------------------------------------------------------------------------------
    def _save(self, path: Path) -> None:
        tensors = {f"{i}.{name}": x for i, one in enumerate(self.exchanges) for name, x in vars(one).items()}
        facts = {"seconds": self.seconds, "read": self.read, "written": self.written, "exchanges": len(self.exchanges)}
        with replacing(path) as unfinished:
            save_file(tensors, unfinished, {name: str(value) for name, value in facts.items()})

    def load(self) -> None:
        """Go on from the file, if there is one."""
        if self.file is None or not self.file.exists():
            return
        with safe_open(self.file, "pt") as file:
            facts = file.metadata()
            names = ("question", "answer", "top", "log_p")
            count = int(facts["exchanges"])
            self.exchanges = [Exchange(*(file.get_tensor(f"{i}.{name}") for name in names)) for i in range(count)]
        self.seconds, self.read, self.written = float(facts["seconds"]), int(facts["read"]), int(facts["written"])
