"""EmbedLens's interventions: take out classes of visual tokens, skip their sub-layers, show images late."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedModel

from laconic import checks
from laconic.artifact import Artifact
from laconic.errors import ArtifactError, BudgetError, UnsupportedModelError
from laconic.families import family_of
from laconic.method import register
from laconic.methods.lens.embedlens.readings import CLASSES, Anchors, Reading, nearest, read, words_of
from laconic.step import Step
from laconic.stream.assemble import assemble
from laconic.stream.contract import Cut, Stream, TokenMethod
from laconic.stream.draws import drawn

SINKS, EVERY = CLASSES[:2], "visual"
CONTROLS = ("targets", "matched", "others")


@dataclass
class Shown:
    """The stream as it was before layer 0: hidden states [B, T, D], what is known about every row, and rows to keep."""

    hidden: Tensor
    positions: Tensor
    valid: Tensor | None
    shown: Tensor
    stays: list[Tensor]


class _OfThread(threading.local):
    """What the hooks of this thread's pass need: the stream before layer 0 for a late entry, tokens [B, T] whose sub-layers
    are skipped, and the step."""

    held: Shown | None = None
    target: Tensor | None = None
    step: Step | None = None


@register(
    "embedlens",
    site="lens",
    modality="image",
    mechanism="pruning, skipping and late injection",
    source="arXiv 2603.00510",
    query_aware=False,
    inferred="priority of the classes (sinks of the encoder, sinks of the LLM, dead); how anchors of other models are found",
)
@dataclass(kw_only=True)
class EmbedLens(TokenMethod):
    """Show what classes of visual tokens are for: run without them, without their sub-layers, or with images shown late.

    Classes, joined with "+": ``vit_sink``, ``llm_sink``, ``dead``, ``alive``, ``sinks`` (both), ``visual`` (all tokens;
    needs no anchors). Tokens that stay keep their positions. The classes decide how many stay, so there is no budget.

    Args:
        prune: classes to take out of the input.
        control: ``"targets"`` removes the classes; ``"matched"`` removes as many other tokens, drawn with `seed`;
            ``"others"`` removes all other tokens and keeps the classes. Where no token belongs to the classes, nothing is
            removed.
        skip: sub-layers whose output is set to zero for the tokens `skip_target`, such as "1.5" or "0.5+1+1.5": n is the
            attention of decoder layer n, n + 0.5 its MLP. Their keys and values are still computed and read. This is for
            analysis: the sub-layers run all the same, and no compute is saved.
        skip_target: the classes to which `skip` applies.
        entry: images enter before this decoder layer, as the projector made them; earlier layers run on text alone, at its
            own positions. 0 and None: from the start.
        exit: all visual tokens leave before this decoder layer.
        anchors: word ids that mark the classes; or `artifact`.
        artifact: a file written by `laconic fit embedlens` or `discover`, a shipped name ("embedlens-llava-1.5-7b": the
            published ids), or a Hub id. Neither: the artifact shipped for these weights.

    Raises:
        ArtifactError: classes are asked for and no anchors are known for this model.
        BudgetError: a budget is given; or every visual token of a sequence would be removed, or more than there are.
        UnsupportedModelError: late entry in a model with several positions per token (M-RoPE).
    """

    prune: str = ""
    control: str = "targets"
    skip: str | float = ""
    skip_target: str = "llm_sink"
    entry: int | None = None
    exit: int | None = None
    anchors: Anchors | None = None
    artifact: str | None = None
    seed: int = 0

    default_keep: ClassVar[float | None] = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.budget_from_parameters and not self.budget.neutral:
            raise BudgetError(f"embedlens: {self.budget}: classes decide what goes; give prune=, entry= or exit= instead.")
        checks.one_of(self, "control", *CONTROLS)
        if self.exit is not None and self.exit <= (self.entry or 0):
            raise ValueError(f"embedlens: exit={self.exit} must come after entry={self.entry or 0}.")
        if self.anchors is not None and self.artifact is not None:
            raise ValueError("embedlens: give anchors= or artifact=, not both.")
        self._pruned, self._skipped = _classes(self.prune, "prune"), _classes(self.skip_target, "skip_target")
        self._attentions, self._mlps = _sub_layers(self.skip)
        self._here = _OfThread()

    def attach(self, model: PreTrainedModel) -> None:
        depth = len(family_of(model).stack(model).layers)  # type: ignore[arg-type]
        wrong = [layer for layer in (*self._attentions, *self._mlps) if not 0 <= layer < depth]
        if wrong:
            raise ValueError(f"embedlens: skip names layer {wrong[0]}; this model has layers 0..{depth - 1}.")
        self._words = words_of(model)
        asked = (*self._pruned, *(self._skipped if self.skip != "" else ()))
        if any(name != EVERY for name in asked) and not self.neutral:
            self._anchors = self.anchors or Anchors.of(Artifact.find(self.name, model, self.artifact, "give anchors=").data)

    @classmethod
    def read_tokens(
        cls, model: PreTrainedModel, tokenizer: Any, inputs: Mapping[str, Tensor], file: str | None
    ) -> tuple[list[Reading], list[str]]:
        """The nearest words of every visual token, and its class where anchors of this model are known; see
        `laconic.lens.TokenReader`. `file`: an artifact with anchors, as `artifact` takes it."""
        anchors, notes = None, []
        try:
            anchors = Anchors.of(Artifact.find(cls.name, model, file).data)
        except ArtifactError:
            if file is not None:
                raise
            notes.append(
                "the lens gives words and no classes: no anchors are shipped for this model. "
                f"`laconic fit {cls.name}` finds them; give its file as --lens {cls.name}:FILE."
            )
        return read(model, tokenizer, inputs, anchors=anchors), notes

    def cuts(self, depth: int) -> Sequence[int]:
        return sorted({0} | {layer for layer in (self.entry, self.exit) if layer is not None})

    # -- what stays ------------------------------------------------------------------------------------------------
    def cut(self, stream: Stream) -> Cut | None:
        nothing = [stream.images(row)[:0] for row in range(len(stream.hidden))]
        if stream.layer and stream.layer == self.exit:
            return assemble(stream, nothing, separators=False)
        if stream.layer:  # entry: the hook has put the images back
            return self._entered(stream)
        stays = self._choose(stream)
        if not self.entry:
            pruned = any(len(kept) < int(stream.shown[row].sum()) for row, kept in enumerate(stays))
            return assemble(stream, stays) if pruned or self.entry is not None else None
        if stream.positions.ndim == 3:
            raise UnsupportedModelError(
                "embedlens: images cannot enter late in a model whose tokens have several positions (M-RoPE); use prune=, "
                "skip= or exit=."
            )
        self._here.held = Shown(stream.hidden, stream.positions, stream.valid, stream.shown, stays)
        return assemble(stream, nothing, separators=False)

    def _choose(self, stream: Stream) -> list[Tensor]:
        """Rows of visual tokens that stay; records the tokens whose sub-layers are skipped."""
        target = torch.zeros_like(stream.shown)
        stays = []
        for row in range(len(stream.hidden)):
            at = stream.images(row)
            kinds = self._kinds(stream, row, at)
            target[row, stream.place[row, at[_among(kinds, self._skipped)]]] = True
            stays.append(at[~self._goes(_among(kinds, self._pruned))] if self._pruned else at)
        self._here.target = target if self.skip != "" else None
        return stays

    def _kinds(self, stream: Stream, row: int, at: Tensor) -> Tensor:
        """Class numbers of the visual tokens `at`; unused where only `visual` is asked for."""
        if not hasattr(self, "_anchors"):
            return torch.full((len(at),), -1, device=at.device)
        return self._anchors.classify(nearest(stream.hidden[row, at], self._words)[1])

    def _goes(self, targets: Tensor) -> Tensor:
        """Which visual tokens of a sequence are taken out, given which of them belong to the classes, [v] each."""
        count, total = int(targets.sum()), len(targets)
        goes = targets
        if self.control == "matched":
            if count > total - count:
                raise BudgetError(
                    f"embedlens: {count} of {total} visual tokens belong to the classes {self.prune}; there are not as many "
                    "others to take out instead. Use a smaller class."
                )
            chances = drawn(total, self.seed).to(targets.device).masked_fill(targets, -1.0)
            goes = torch.zeros_like(targets)
            goes[chances.topk(count).indices] = True
        elif self.control == "others":
            goes = ~targets if count else targets
        if total and bool(goes.all()):
            raise BudgetError(
                f"embedlens: prune={self.prune} would take out all {total} visual tokens; at least one must stay. Use exit= "
                "to run layers without images."
            )
        return goes

    # -- late entry ------------------------------------------------------------------------------------------------
    def _entered(self, stream: Stream) -> Cut:
        held, self._here.held = self._here.held, None
        assert held is not None
        whole = assemble(stream, held.stays)
        return Cut(whole.keep, None, held.positions.expand(len(whole.keep), -1).gather(1, whole.keep.clamp(min=0)))

    def _enter(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Before the entry layer: text as the earlier layers left it, images as the projector made them."""
        step, held = kwargs["past_key_values"].step, self._here.held
        if held is None or step is None or step.shown is None:
            return None
        hidden, whole = args[0] if args else kwargs["hidden_states"], held.hidden.clone()
        place = step.token_index(len(hidden)).long() - step.start
        for row in range(len(hidden)):
            real = slice(None) if step.valid is None else step.valid[row]
            whole[row, place[row, real]] = hidden[row, real]
        step.restart(held.positions, held.valid, held.shown)
        return ((whole, *args[1:]), kwargs) if args else (args, kwargs | {"hidden_states": whole})

    # -- skipped sub-layers ----------------------------------------------------------------------------------------
    def install(self, model: PreTrainedModel) -> list[RemovableHandle]:
        layers: Any = family_of(model).stack(model).layers
        handles = [] if not self.entry else [layers[self.entry].register_forward_pre_hook(self._enter, with_kwargs=True)]
        for number in sorted({*self._attentions, *self._mlps}):
            handles.append(layers[number].register_forward_pre_hook(self._note, with_kwargs=True))
        for name, numbers in (("self_attn", self._attentions), ("mlp", self._mlps)):
            for number in numbers:
                part: nn.Module | None = getattr(layers[number], name, None)
                if part is None:
                    raise UnsupportedModelError(f"embedlens: {type(layers[number]).__name__} has no {name} to skip.")
                handles.append(part.register_forward_hook(self._silence))
        return handles

    def _note(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._here.step = kwargs["past_key_values"].step

    def _silence(self, module: nn.Module, args: Any, output: Any) -> Any:
        """The same output with zeros for the target tokens."""
        step, target = self._here.step, self._here.target
        if step is None or step.shown is None or target is None or self.neutral:
            return output
        out = output[0] if isinstance(output, tuple) else output
        rows = target.gather(1, step.token_index(len(out)).long() - step.start)
        if step.valid is not None:
            rows = rows & step.valid
        out = out.masked_fill(rows[..., None], 0.0)
        return (out, *output[1:]) if isinstance(output, tuple) else out


def _among(kinds: Tensor, names: Sequence[str]) -> Tensor:
    """Which class numbers [v] belong to the classes `names`."""
    if EVERY in names:
        return torch.ones_like(kinds, dtype=torch.bool)
    numbers = torch.tensor([CLASSES.index(name) for name in names], dtype=kinds.dtype, device=kinds.device)
    return torch.isin(kinds, numbers)


def _classes(text: str, parameter: str) -> tuple[str, ...]:
    names = [name.strip() for name in text.split("+") if name.strip()]
    unknown = [name for name in names if name not in (*CLASSES, "sinks", EVERY)]
    if unknown:
        raise ValueError(
            f"embedlens: {parameter}={text!r}: {unknown[0]!r} is not in {', '.join(CLASSES)}, sinks, {EVERY}; join with +."
        )
    return tuple(part for name in names for part in (SINKS if name == "sinks" else (name,)))


def _sub_layers(text: str | float) -> tuple[list[int], list[int]]:
    """Numbers of the layers whose attention is skipped, and of those whose MLP is."""
    attentions: list[int] = []
    mlps: list[int] = []
    for word in filter(None, str(text).split("+")):
        try:
            twice = 2 * float(word)
        except ValueError:
            twice = 0.5
        if twice < 0 or twice != int(twice):
            raise ValueError(
                f"embedlens: skip={text!r}: {word!r} is not a sub-layer; n is an attention, n.5 an MLP, such as '0.5+1'."
            )
        (mlps if twice % 2 else attentions).append(int(twice) // 2)
    return attentions, mlps
