"""`laconic inspect --image`: one question about images at several budgets, and what each of them kept of the patches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from laconic.cli import common

if TYPE_CHECKING:
    from laconic.cli.options import Request
    from laconic.media import Frame
    from laconic.method import Method
    from laconic.prompts.text import Prompt
    from laconic.report.image_page import Gallery, Lens, Level, Numbers, View
    from laconic.session import Session

KEEPS = (0.055, 0.11, 0.25, 0.5)
"""Tried when no budget is given; the uncompressed model always stands beside them."""
LENS = "embedlens"
QUESTION = "Describe the image."
"""Asked when there is neither a question nor a context."""
BUDGETS = ("keep=", "tokens=", "bytes=")


@dataclass(frozen=True)
class Trial:
    """One budget to run: its name on the slider, the methods as set."""

    label: str
    methods: list[Method]


def inspect_image(
    request: Request, keeps: list[float] | None, lens: str | None, page: Path | None, png: Path | None, as_json: bool
) -> None:
    """The command; what can be checked before a model is loaded has been."""
    if lens is not None and lens.partition(":")[0] != LENS:
        raise common.InputError(f"--lens {lens}: there is one lens for images: {LENS}, or {LENS}:FILE with its anchors.")
    request.question = request.question or ("" if request.context else QUESTION)
    text = request.text()
    images = request.images()
    trials = trials_of(request, keeps)
    model, tokenizer = request.load()
    prompt = request.prompt(tokenizer, text, images)
    request.check_length(model, prompt)
    with common.spinner("looking and answering"):
        gallery = sweep(request, model, tokenizer, prompt, images, trials)
        if lens is not None:
            gallery = replace(gallery, lens=read(request, model, tokenizer, prompt, gallery, lens.partition(":")[2]))
    if page is not None:
        page.write_text(_page(request, images, trials, gallery), encoding="utf-8")
    if png is not None:
        from laconic.report.image_png import image_png

        image_png(gallery, f"{_title(images, trials)}: {request.model}").save(png, "PNG", optimize=True)
    if as_json:
        common.emit(record(request, images, trials, gallery, page, png))
        return
    console = common.out()
    for warning in request.warnings:
        common.err().print(f"warning: {warning}", style="yellow", markup=False, soft_wrap=True)
    for level in gallery.levels:
        mean = level.share.sum(1).mean()
        answer = request.answer_prefix + level.answer
        line = f"{level.label}: {mean:,.1f} of {len(gallery.numbers):,} visual tokens (mean over layers): {answer}"
        console.print(common.clean(line), markup=False, soft_wrap=True)
    console.print(", ".join(str(path) for path in (page, png) if path is not None), markup=False, soft_wrap=True)


def trials_of(request: Request, keeps: list[float] | None) -> list[Trial]:
    """What to run, the tightest budget first and the uncompressed model last."""
    from laconic.method import find

    full = Trial("1", [])
    specs = request.method or []
    if not specs:
        return [full]
    given = request.tokens is not None or request.nbytes is not None
    if given or all(any(budget in spec for budget in BUDGETS) for spec in specs):
        return [Trial("as given", request.methods()), full]
    if keeps is None and all(find(spec.partition(":")[0].strip()).cls.default_keep is None for spec in specs):
        return [Trial("own parameters", request.methods()), full]
    wanted = sorted(set(keeps or KEEPS) - {1.0})
    return [*(Trial(f"{keep:g}", replace(request, keep=keep).methods()) for keep in wanted), full]


def sweep(
    request: Request, model: Any, tokenizer: Any, prompt: Prompt, images: Sequence[Frame], trials: Sequence[Trial]
) -> Gallery:
    """Run all trials; a budget that a method cannot keep to is left out with a warning.

    Raises:
        BudgetError: none of the budgets can be kept to.
    """
    from laconic.cli import engine
    from laconic.cli.inspect_patches import Eyes, level
    from laconic.errors import BudgetError
    from laconic.report.image_page import Gallery

    found: tuple[list[View], Numbers] | None = None
    levels: list[Level] = []

    def answer(trial: Trial) -> Level:
        traced: list[Level] = []

        def ready(session: Session) -> None:
            nonlocal found
            found = found or eyes.views(_names(images))
            traced.append(level(session, found[1], trial.label))

        done = engine.compressed(model, tokenizer, prompt, trial.methods, request, ready=ready)
        return replace(traced[0], answer=request.answer_prefix + done.result.text)

    with Eyes(model, getattr(request.processor, "image_processor", None)) as eyes:
        full = answer(trials[-1])
    refusal: BudgetError | None = None
    for trial in trials[:-1]:
        try:
            levels.append(answer(trial))
        except BudgetError as error:
            refusal = refusal or error
            request.warnings.append(f"budget {trial.label} is left out: {error}")
    if refusal is not None and not levels:
        raise refusal
    assert found is not None
    return Gallery(*found, [*levels, full])


def read(request: Request, model: Any, tokenizer: Any, prompt: Prompt, gallery: Gallery, anchors: str) -> Lens:
    """What EmbedLens reads in every visual token: the nearest words, and classes where anchors of this model are known.

    Args:
        anchors: a recipe with anchors: a file, or the name of a shipped one; empty: the shipped one of this model.

    Raises:
        RecipeError: no such recipe, or one of another model.
    """
    import torch

    from laconic import recipe
    from laconic.cli.engine import on_device
    from laconic.errors import RecipeError
    from laconic.methods.lens import embedlens as lens
    from laconic.report.image_page import Lens

    known = None
    try:
        known = lens.Anchors.of(recipe.find(LENS, model, anchors or None).data)
    except RecipeError:
        if anchors:
            raise
        request.warnings.append(
            "the lens gives words and no classes: no anchors are shipped for this model. "
            "laconic.methods.lens.embedlens.discover finds them; "
            f"give its file as --lens {LENS}:FILE."
        )
    ids = torch.tensor([prompt.ids], device=model.device)
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), **on_device(model, prompt.inputs)}
    readings = {r.token: r for r in lens.read(model, tokenizer, inputs, anchors=known)}
    mine = [readings[token] for token in gallery.numbers.tolist()]
    return Lens(LENS, [r.words for r in mine], [r.cosines for r in mine], [r.kind for r in mine if r.kind is not None])


def _names(images: Sequence[Frame]) -> list[str]:
    """What to call images: nothing when there is one, frames by their number, others by their file."""
    if len(images) == 1:
        return [""]
    return [Path(p.source).name if p.of == 1 else f"frame {p.number + 1}" for p in images]


def _page(request: Request, images: Sequence[Frame], trials: Sequence[Trial], gallery: Gallery) -> str:
    from laconic.report.image_page import About, image_page

    files = dict.fromkeys(f"{Path(p.source).name} ({p.image.width} x {p.image.height})" for p in images)
    views = len(gallery.views)
    facts = [
        ("model", request.model),
        ("method", "; ".join(map(_parameters, trials[0].methods)) or "none: everything is stored"),
        ("image" if len(files) == 1 else "images", ", ".join(files)),
        ("read as", f"{views} view{'s' * (views > 1)}, {len(gallery.numbers):,} visual tokens"),
        ("question", request.question),
    ]
    if request.query_agnostic:
        facts.append(("mode", "query-agnostic: the images were compressed before the question was known"))
    if request.protect:
        facts.append(("protected", "; ".join(request.protect)))
    about = About(facts, request.warnings, start=(len(gallery.levels) - 1) // 2)
    return image_page(_title(images, trials), about, gallery)


def _title(images: Sequence[Frame], trials: Sequence[Trial]) -> str:
    name = " + ".join(m.name for m in trials[0].methods) or "no method"
    return f"What {name} kept of the image{'s' * (len(images) > 1)}"


def _parameters(method: Method) -> str:
    """A method without its budget, which is what the slider is about."""
    own = ", ".join(f"{k}={v}" for k, v in method.parameters().items())
    return f"{method.name}({own})" if own else method.name


def record(
    request: Request,
    images: Sequence[Frame],
    trials: Sequence[Trial],
    gallery: Gallery,
    page: Path | None,
    png: Path | None,
) -> dict[str, Any]:
    """The JSON of `inspect --image`; the keys are stable. Visual tokens are named by their place in the prompt."""
    from laconic.cli.run import method_dict

    methods = {trial.label: [method_dict(m) for m in trial.methods] for trial in trials}
    names = gallery.numbers.tolist()
    return {
        "model": request.model,
        "images": [{"file": p.source, "frame": p.number, "frames": p.of} for p in images],
        "question": request.question,
        "answer_prefix": request.answer_prefix,
        "visual_tokens": names,
        "views": [
            {
                "image": v.item,
                "name": v.name,
                "cells": [[names[token] if token >= 0 else None for token in line] for line in v.cells.tolist()],
            }
            for v in gallery.views
        ],
        "lens": None if gallery.lens is None else vars(gallery.lens),
        "levels": [{"methods": methods[level.label], **_level(gallery, level)} for level in gallery.levels],
        "out": None if page is None else str(page),
        "png": None if png is None else str(png),
        "warnings": request.warnings,
    }


def _level(gallery: Gallery, level: Level) -> dict[str, Any]:
    def named(tokens: Any) -> list[int]:
        return [int(number) for number in gallery.numbers[tokens]]

    return {
        "label": level.label,
        "asked": level.asked,
        "achieved": level.achieved,
        "answer": level.answer,
        "kept": {str(layer): named(kept) for layer, kept in zip(level.layers, level.kept, strict=True)},
        "merged": {
            str(layer): dict(zip(map(str, named(merged)), named(into[merged]), strict=True))
            for layer, merged, into in zip(level.layers, level.merged, level.into, strict=True)
            if merged.any()
        },
        "cuts": [
            {k: getattr(c, k) for k in ("layer", "method", "before", "after", "merged")}
            | {"scores": None if c.scores is None else [None if x != x else float(x) for x in c.scores]}
            for c in level.cuts
        ],
    }
