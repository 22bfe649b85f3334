"""Training of the network of `explainability`: label what the frozen host answers right, then fit the labels.

Both halves can be interrupted: pairs of attention and relevance are in the folder, and the host is not needed once they are
made (arXiv 2506.01097, section 3).
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import PreTrainedModel

from laconic.fit.checkpoint import FREE, frozen, load_state, noting, resumable, save_state
from laconic.fit.images import Asked, inputs, numbered
from laconic.fit.trainers import register
from laconic.methods.tokens.explainability.network import Compressor, RelevanceNet, load
from laconic.methods.tokens.explainability.relevance import explained, target
from laconic.recipe import fingerprint, model_name

WEIGHTS, PAIRS = "explainability.safetensors", "pairs.safetensors"


@dataclass(kw_only=True)
class Settings:
    """What can be set.

    Attributes:
        samples: questions to label; those that the host answers wrongly are left out.
        new_tokens: longest answer; long ones make relevance flat.
        steps: of the optimiser (Adam), `batch` pairs each, at the constant rate `lr`.
        kernel: of the network.
        file: lines of JSON ``{"image": FILE, "question": TEXT, "answer": TEXT}``, several per image if you like; empty
            for the testbed's scenes (only for its models).
        save_every: steps between checkpoints; labels are saved every `save_labels` questions.
    """

    samples: int = 2048
    new_tokens: int = 8
    steps: int = 1600
    batch: int = 128
    lr: float = 1e-3
    kernel: int = 5
    seed: int = 0
    log_every: int = 50
    save_every: int = 200
    save_labels: int = 100
    file: str = ""

    def __post_init__(self) -> None:
        if self.kernel % 2 == 0:
            raise ValueError(f"kernel={self.kernel} must be odd.")
        for name in ("samples", "new_tokens", "steps", "batch", "lr", "kernel", "log_every", "save_every", "save_labels"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name}={getattr(self, name)} must be positive.")


class Source(Protocol):
    """Questions by number; equal numbers give equal questions."""

    def ask(self, number: int) -> tuple[dict[str, Tensor], str]:
        """Question `number`, from 0: model inputs of its prompt, and the reference answer."""

    def text(self, ids: Tensor) -> str:
        """What generated tokens [G] say."""


class Chats:
    """Questions about images through a processor with a chat template."""

    def __init__(self, processor: Any, questions: Callable[[int], Asked]):
        self.processor, self.questions = processor, questions

    def ask(self, number: int) -> tuple[dict[str, Tensor], str]:
        asked = self.questions(number)
        return inputs(self.processor, [asked]), asked.answer

    def text(self, ids: Tensor) -> str:
        return str(self.processor.tokenizer.decode(ids, skip_special_tokens=True)).strip()


class Labels:
    """Pairs (attention, R*) [v] each, made one question after the other.

    Attributes:
        done: questions asked so far; `pairs`: those that the host answered right.
    """

    def __init__(self, model: PreTrainedModel, source: Source, settings: Settings):
        self.model, self.source, self.settings = model, source, settings
        self.done = 0
        self.pairs: list[tuple[Tensor, Tensor]] = []

    def label(self) -> bool:
        """Ask the next question; true if its answer was right and a pair was made. `model` must attend eagerly."""
        prompt, reference = self.source.ask(self.done)
        self.done += 1
        given = {name: x.to(self.model.device) for name, x in prompt.items()}
        length = given["input_ids"].shape[1]
        with torch.no_grad():
            out = self.model.generate(**given, max_new_tokens=self.settings.new_tokens, do_sample=False)  # type: ignore[operator]
        answer = out[0, length:]
        if self.source.text(answer) != reference or not len(answer):
            return False
        attention, relevance = explained(self.model, given, _spoken(answer, self.model))
        self.pairs.append((attention, target(relevance)))
        return True

    def save(self, path: Path) -> None:
        """All pairs so far, and how many questions they took."""
        tensors = {f"{i}.{name}": x for i, pair in enumerate(self.pairs) for name, x in zip("ar", pair, strict=True)}
        save_file({**tensors, "done": torch.tensor(self.done)}, path)

    def load(self, path: Path) -> None:
        tensors = load_file(path)
        self.done = int(tensors.pop("done"))
        self.pairs = [(tensors[f"{i}.a"], tensors[f"{i}.r"]) for i in range(len(tensors) // 2)]


def _spoken(answer: Tensor, model: PreTrainedModel) -> Tensor:
    """Generated tokens without the end of the turn, unless there is nothing else."""
    config: Any = model.generation_config
    ends = config.eos_token_id
    ends = [] if ends is None else ends if isinstance(ends, list) else [ends]
    stops = [i for i, token in enumerate(answer.tolist()) if token in ends]
    return answer[: stops[0]] if stops and stops[0] else answer[: len(answer) if not stops else 1]


def loss(net: RelevanceNet, pairs: list[tuple[Tensor, Tensor]]) -> Tensor:
    """Mean KL(R* || softmax of what the network says). Pairs of one length run together; lengths do not mix."""
    total = torch.zeros(())
    for length in sorted({len(a) for a, _ in pairs}):
        some = [(a, r) for a, r in pairs if len(a) == length]
        said = net(torch.stack([a for a, _ in some])).log_softmax(-1)
        total = total + F.kl_div(said, torch.stack([r for _, r in some]), reduction="sum")
    return total / len(pairs)


class Fit:
    """The state of the second half: network, optimiser, step; all of it is in the folder after `save`."""

    def __init__(self, pairs: list[tuple[Tensor, Tensor]], settings: Settings):
        self.pairs, self.settings, self.done = pairs, settings, 0
        torch.manual_seed(settings.seed)
        self.net = RelevanceNet(settings.kernel).train()
        self.optimiser = torch.optim.Adam(self.net.parameters(), lr=settings.lr)

    def step(self) -> float:
        """One step on pairs drawn by (seed, step)."""
        rng = random.Random(f"{self.settings.seed}-{self.done}")
        value = loss(self.net, rng.sample(self.pairs, min(self.settings.batch, len(self.pairs))))
        self.optimiser.zero_grad(set_to_none=True)
        value.backward()  # type: ignore[no-untyped-call]
        self.optimiser.step()
        self.done += 1
        return float(value.detach())

    def save(self, out: Path, about: Compressor) -> None:
        """Weights, optimiser and step."""
        about.save(out / WEIGHTS)
        save_state(out, [self.optimiser], {"done": self.done, "settings": asdict(self.settings)})

    def resume(self, out: Path, done: int) -> None:
        self.net.load_state_dict(load(out / WEIGHTS).net.state_dict())
        load_state(out, [self.optimiser])
        self.done = done


def run(
    model: PreTrainedModel, source: Source, settings: Settings, out: Path, resume: bool, log: Callable[[str], None]
) -> Path:
    """Label, fit, and return the file of the weights. See `train`."""

    out.mkdir(parents=True, exist_ok=True)
    note = noting(out, log)
    labels, began = Labels(model, source, settings), time.time()
    done = int(resumable(out, settings, (*FREE, "save_labels"))["done"]) if resume else 0
    if resume and (out / PAIRS).exists():
        labels.load(out / PAIRS)
    elif not resume:
        save_state(out, [], {"done": 0, "settings": asdict(settings)})
    while labels.done < settings.samples:
        labels.label()
        if labels.done % settings.save_labels == 0 or labels.done == settings.samples:
            labels.save(out / PAIRS)
            note(f"{labels.done} questions, {len(labels.pairs)} answered right, {time.time() - began:.0f} s")
    if len(labels.pairs) < 2:
        raise ValueError(
            f"the host answered {len(labels.pairs)} of {labels.done} questions right; too few to train on. Give data that "
            "it answers, whose reference answers are written as it writes them."
        )
    fit = Fit(labels.pairs, settings)
    if done:
        fit.resume(out, done)
    made = {"settings": asdict(settings), "pairs": len(labels.pairs)}
    about, recent = Compressor(fit.net, model_name(model), fingerprint(model), made), []
    while fit.done < settings.steps:
        recent.append(fit.step())
        if fit.done % settings.log_every == 0 or fit.done == settings.steps:
            note(f"step {fit.done} KL {sum(recent) / len(recent):.4f} {time.time() - began:.0f} s")
            recent = []
        if fit.done % settings.save_every == 0 or fit.done == settings.steps:
            fit.save(out, about)
    return out / WEIGHTS


@register("explainability", "the network that guesses which visual tokens an answer rests on (frozen model)", Settings)
def train(
    model: PreTrainedModel, processor: Any, settings: Settings, out: Path, resume: bool, log: Callable[[str], None]
) -> Path:
    """Train the network for a model with images; `processor` is its processor (not the tokenizer alone).

    Returns:
        ``out/explainability.safetensors``.
    """
    source = Chats(processor, numbered(settings.file, settings.seed))
    with frozen(model, "eager"):
        return run(model, source, settings, out, resume, log)
