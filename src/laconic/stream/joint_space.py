"""CLIP's joint space of images and text, for methods that compare patches with the question in it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor
from transformers import AutoTokenizer, CLIPModel, PreTrainedModel

from laconic.errors import SessionError, UnsupportedModelError
from laconic.families.vision import vision_family_of
from laconic.one_load import ONE_LOAD
from laconic.stream.stream import Stream

SAME = 0.01
"""Weights that differ by less than this share of their norm are the same weights in another precision."""
Question = str | Sequence[str] | Callable[[list[int]], str]


class ComparesInClip(Protocol):
    """The parameters of a method that compares patches with a question through CLIP.

    Attributes:
        text_tower: the CLIP model whose vision half is the model's encoder, or its folder (safetensors).
        tokenizer: of that CLIP model, or its folder; None: from the folder of `text_tower`.
        question: one for all, one for each sequence, or a function of the prompt's text token ids (all but placeholders).
    """

    name: ClassVar[str]
    text_tower: CLIPModel | str | None
    tokenizer: Any
    question: Question | None


@dataclass(frozen=True)
class JointSpace:
    """A CLIP model with its tokenizer, and what is asked of it.

    Attributes:
        name: of the method, for messages.
    """

    name: str
    clip: CLIPModel
    words: Any
    question: Question

    def asked(self, stream: Stream, row: int) -> str:
        """The question of a batch row.

        Raises:
            SessionError: the questions do not fit the batch.
        """
        if callable(self.question):
            return self.question(stream.ids[row, stream.place[row, stream.texts(row)]].tolist())
        if isinstance(self.question, str):
            return self.question
        batch = len(stream.hidden)
        if not self.question or batch % len(self.question):
            raise SessionError(
                f"{self.name}: question= has {len(self.question)} entries for a batch of {batch}; give one for each "
                "sequence, or one for all."
            )
        return self.question[row * len(self.question) // batch]  # beams repeat rows

    def text(self, question: str) -> Any:
        """The text half's output for a question, padded or truncated to the longest that it reads."""
        longest = self.clip.text_model.config.max_position_embeddings
        words = self.words(question, padding="max_length", truncation=True, max_length=longest, return_tensors="pt")
        return self._read({name: words[name] for name in ("input_ids", "attention_mask") if name in words})

    def pieces(self, question: str) -> Tensor:
        """Embeddings of a question of any length, one for each stretch that the text half can read, [m, C']."""
        longest = self.clip.text_model.config.max_position_embeddings
        words = self.words(question, return_tensors="pt")
        missing = -words["input_ids"].shape[1] % longest
        padded = {
            name: torch.nn.functional.pad(words[name], (0, missing)).view(-1, longest)
            for name in ("input_ids", "attention_mask")
            if name in words
        }
        return self.project(self._read(padded).pooler_output)

    def project(self, x: Tensor) -> Tensor:
        """Outputs of the text half in the joint space."""
        with torch.no_grad():
            return self.clip.text_projection(x)

    def _read(self, words: dict[str, Tensor]) -> Any:
        with torch.no_grad():
            return self.clip.text_model(**{name: x.to(self.clip.device) for name, x in words.items()})


def joint_space(method: ComparesInClip, model: PreTrainedModel) -> JointSpace:
    """The joint space of the CLIP model that a method's parameters name.

    Raises:
        UnsupportedModelError: its vision half is not this model's encoder.
        ValueError: text_tower, tokenizer or question is missing.
    """
    name = method.name
    for parameter in ("text_tower", "question"):
        if getattr(method, parameter) is None:
            raise ValueError(
                f"{name}: {parameter}=None: with text='clip' it compares patches with the question through the text half of "
                "the model's CLIP; give text_tower=, tokenizer= and question=, or choose text='llm'."
            )
    clip, words = _load(name, method.text_tower, method.tokenizer)
    own, other = vision_family_of(model).tower(model).state_dict(), clip.vision_model.state_dict()
    for key in (key for key in other if key.endswith(("patch_embedding.weight", "q_proj.weight"))):
        mine, given = own.get(key, own.get(f"vision_model.{key}")), other[key].cpu().float()
        if mine is None or mine.shape != given.shape or (mine.cpu().float() - given).norm() > SAME * given.norm():
            raise UnsupportedModelError(
                f"{name}: {key} of text_tower is not that of this model's vision encoder, so its joint space is not that of "
                "these patches; give the CLIP that the encoder comes from, or choose text='llm'."
            )
    clip.to(model.device)  # type: ignore[arg-type]
    assert method.question is not None
    return JointSpace(name, clip, words, method.question)


def _load(name: str, tower: CLIPModel | str | None, tokenizer: Any) -> tuple[CLIPModel, Any]:
    folder = tower if isinstance(tower, (str, Path)) else None
    if isinstance(tower, (str, Path)):
        with ONE_LOAD:
            tower = CLIPModel.from_pretrained(tower, use_safetensors=True)
    if not isinstance(tower, CLIPModel):
        raise TypeError(f"{name}: text_tower is a {type(tower).__name__}; give a CLIPModel or its folder.")
    tokenizer = folder if tokenizer is None else tokenizer
    if tokenizer is None:
        raise ValueError(f"{name}: tokenizer=None: give the tokenizer of text_tower, or its folder.")
    if isinstance(tokenizer, (str, Path)):
        tokenizer = AutoTokenizer.from_pretrained(tokenizer)
    return tower.eval(), tokenizer
