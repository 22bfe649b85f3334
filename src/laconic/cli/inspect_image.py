"""`laconic inspect --image`, `--video` and `--audio`: one question at several budgets, and what each of them kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from laconic.cli import answering, common
from laconic.cli.common import InputError
from laconic.cli.inspect_patches import Eyes, level
from laconic.cli.inspect_time import edges_of
from laconic.cli.options import Options
from laconic.cli.question import Question, methods_of, question_of
from laconic.cli.record import method_dict
from laconic.errors import BudgetError
from laconic.lens import TokenReader
from laconic.method import Method, find, list_methods
from laconic.prompts.inputs import on_device
from laconic.report.image_page import About, Gallery, Lens, Level, Numbers, View, image_page
from laconic.report.image_png import image_png
from laconic.session import Session
from laconic.specs import create_methods

KEEPS = (0.055, 0.11, 0.25, 0.5)
"""Tried when no budget is given; the uncompressed model is always shown beside them."""
QUESTIONS = {"visual": "Describe the image.", "audio": "What is heard?"}
"""Asked when there is neither a question nor a context."""
BUDGETS = ("keep=", "tokens=", "bytes=")


@dataclass(frozen=True)
class Trial:
    """One budget to run: its name on the slider, the methods as set."""

    label: str
    methods: list[Method]


def inspect_image(
    options: Options, keeps: list[float] | None, lens: str | None, page: Path | None, png: Path | None, as_json: bool
) -> None:
    """The command; what can be checked before a model is loaded has been."""
    kind = "audio" if options.hears else "visual"
    options.question = options.question or ("" if options.context else QUESTIONS[kind])
    context = options.text()
    with common.spinner("importing the methods"):
        reader = None if lens is None else lens_of(lens.partition(":")[0])
        trials = trials_of(options, keeps)
    question = question_of(options, context, trials[0].methods)
    with common.spinner("looking and answering"):
        gallery = replace(sweep(question, trials), kind=kind)
        if reader is not None and lens is not None:
            gallery = replace(gallery, lens=read(question, gallery, reader, lens))
    if page is not None:
        page.write_text(_page(question, gallery), encoding="utf-8")
    if png is not None:
        image_png(gallery, f"{_title(question)}: {options.model_name}").save(png, "PNG", optimize=True)
    if as_json:
        common.emit(record(question, trials, gallery, page, png))
        return
    told(options, gallery, (page, png))


def told(options: Options, gallery: Gallery, files: Sequence[Path | None]) -> None:
    """Warnings, a line for each budget, and the files that were written."""
    console = common.out()
    for warning in options.warnings:
        common.err().print(f"warning: {warning}", style="yellow", markup=False, soft_wrap=True)
    for one in gallery.levels:
        mean = one.share.sum(1).mean()
        line = f"{one.label}: {mean:,.1f} of {len(gallery.numbers):,} {gallery.kind} tokens (mean over layers): {one.answer}"
        console.print(common.clean(line), markup=False, soft_wrap=True)
    console.print(", ".join(str(path) for path in files if path is not None), markup=False, soft_wrap=True)


def lens_of(name: str) -> type[TokenReader]:
    """The lens of the catalogue called `name`.

    Raises:
        InputError: there is none that reads visual tokens.
    """
    known = {entry.name: entry.cls for entry in list_methods() if issubclass(entry.cls, TokenReader)}
    if name not in known:
        raise InputError(
            f"--lens {name}: choose one of {', '.join(known)}; a file with its classes may follow, as LENS:FILE."
        )
    return known[name]


def trials_of(options: Options, keeps: list[float] | None) -> list[Trial]:
    """What to run, from the tightest budget to the uncompressed model."""
    full = Trial("1", [])
    specs = options.method or []
    if not specs:
        return [full]
    given = options.tokens is not None or options.nbytes is not None
    if given or all(any(budget in spec for budget in BUDGETS) for spec in specs):
        return [Trial("as given", methods_of(options)), full]
    if keeps is None and all(find(spec.partition(":")[0].strip()).cls.default_keep is None for spec in specs):
        return [Trial("own parameters", methods_of(options)), full]
    wanted = sorted(set(keeps or KEEPS) - {1.0})
    return [*(Trial(f"{keep:g}", create_methods(specs, keep=keep)) for keep in wanted), full]


def sweep(question: Question, trials: Sequence[Trial]) -> Gallery:
    """Run all trials; a budget that a method cannot keep to is left out with a warning.

    Raises:
        BudgetError: none of the budgets can be kept to.
    """
    found: tuple[list[View], Numbers] | None = None

    def answer(trial: Trial) -> Level:
        traced: list[Level] = []

        def at_prompt(session: Session) -> None:
            nonlocal found
            found = found or eyes.views(_names(question), edges_of(question.frames, question.request.clip))
            traced.append(level(session, found[1], trial.label))

        run = answering.compressed(question.with_methods(trial.methods), at_prompt=at_prompt)
        return replace(traced[0], answer=question.options.answer_prefix + run.answer.text)

    with Eyes(question.engine.model, getattr(question.engine.reader, "image_processor", None)) as eyes:
        levels = levels_of(trials, answer, question.options.warnings)
    assert found is not None
    return Gallery(*found, levels)


def levels_of(trials: Sequence[Trial], answer: Callable[[Trial], Level], warnings: list[str]) -> list[Level]:
    """What `answer` finds at each budget, the uncompressed model first to be asked and last in the list. A budget that a
    method cannot keep to is left out with a warning.

    Raises:
        BudgetError: none of the budgets can be kept to.
    """
    full, levels = answer(trials[-1]), []
    refusal: BudgetError | None = None
    for trial in trials[:-1]:
        try:
            levels.append(answer(trial))
        except BudgetError as error:
            refusal = refusal or error
            warnings.append(f"budget {trial.label} is left out: {error}")
    if refusal is not None and not levels:
        raise refusal
    return [*levels, full]


def read(question: Question, gallery: Gallery, reader: type[TokenReader], lens: str) -> Lens:
    """What a lens reads in every visual token: the nearest words, and classes where it knows them for this model.

    Args:
        lens: its name, and after a colon the file that defines its classes.
    """
    name, _, file = lens.partition(":")
    model, prompt = question.engine.model, question.prompt
    ids = torch.tensor([prompt.ids], device=model.device)
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), **on_device(model, prompt.inputs)}
    found, notes = reader.read_tokens(model, question.engine.tokenizer, inputs, file or None)
    question.options.warnings += notes
    readings = {reading.token: reading for reading in found}
    shown = [readings[token] for token in gallery.numbers.tolist()]
    kinds = [r.kind for r in shown if r.kind is not None]
    return Lens(name, [r.words for r in shown], [r.cosines for r in shown], kinds)


def _names(question: Question) -> list[str]:
    """What to call what is shown: nothing when there is one thing, frames by their number, others by their file. A video
    that the model takes as one is one thing, after the images."""
    if question.sounds:
        files = question.options.audio or []
        return [""] if len(files) == 1 else [Path(file).name for file in files]
    images = list(question.frames)
    if question.request.clip is not None:
        del images[len(question.request.images) + 1 :]
        return [""] if len(images) == 1 else [Path(p.source).name for p in images]
    if len(images) == 1:
        return [""]
    return [Path(p.source).name if p.of == 1 else f"frame {p.number + 1}" for p in images]


def _page(question: Question, gallery: Gallery) -> str:
    options = question.options
    files = _files(question)
    views, what = len(gallery.views), _what(question)
    facts = [
        ("model", options.model_name),
        ("method", "; ".join(map(parameters_of, question.methods)) or "none: everything is stored"),
        (what if len(files) == 1 else f"{what}s", ", ".join(files)),
        ("read as", f"{views} view{'s' * (views > 1)}, {len(gallery.numbers):,} {gallery.kind} tokens"),
        ("question", options.question),
    ]
    if question.later:
        facts.append(("mode", f"later: the {what} was compressed before the question was known"))
    if options.protect:
        facts.append(("protected", "; ".join(options.protect)))
    about = About(facts, options.warnings, start=(len(gallery.levels) - 1) // 2)
    return image_page(_title(question), about, gallery)


def _files(question: Question) -> list[str]:
    """What was given, with its size or length."""
    if question.sounds:
        heard = zip(question.options.audio or (), question.sounds, strict=True)
        return [f"{Path(file).name} ({sound.seconds:.2f} s)" for file, sound in heard]
    return list(dict.fromkeys(f"{Path(p.source).name} ({p.image.width} x {p.image.height})" for p in question.frames))


def _title(question: Question) -> str:
    name = " + ".join(m.name for m in question.methods) or "no method"
    what, number = _what(question), len(question.sounds or question.frames)
    return f"What {name} kept of the {what}{'s' * (number > 1 and what != 'video')}"


def _what(question: Question) -> str:
    if question.sounds:
        return "sound"
    return "video" if question.options.video and not question.options.image else "image"


def parameters_of(method: Method) -> str:
    """A method without its budget, which is what the slider is about."""
    own = ", ".join(f"{k}={v}" for k, v in method.parameters().items())
    return f"{method.name}({own})" if own else method.name


def record(
    question: Question, trials: Sequence[Trial], gallery: Gallery, page: Path | None, png: Path | None
) -> dict[str, Any]:
    """The JSON of `inspect` about media; the keys are stable. Tokens are named by their place in the prompt."""
    options = question.options
    methods = {trial.label: [method_dict(m) for m in trial.methods] for trial in trials}
    names = gallery.numbers.tolist()
    return {
        "model": options.model_name,
        **_media(question),
        "question": options.question,
        "answer_prefix": options.answer_prefix,
        f"{gallery.kind}_tokens": names,
        "views": [
            {
                "image": v.item,
                "name": v.name,
                "time": v.time,
                "cells": [[names[token] if token >= 0 else None for token in line] for line in v.cells.tolist()],
            }
            for v in gallery.views
        ],
        "lens": None if gallery.lens is None else vars(gallery.lens),
        "levels": [{"methods": methods[level.label], **level_dict(gallery, level)} for level in gallery.levels],
        "out": None if page is None else str(page),
        "png": None if png is None else str(png),
        "warnings": options.warnings,
    }


def _media(question: Question) -> dict[str, Any]:
    if question.sounds:
        heard = zip(question.options.audio or (), question.sounds, strict=True)
        return {"sounds": [{"file": file, "seconds": sound.seconds} for file, sound in heard]}
    return {"images": [{"file": p.source, "frame": p.number, "frames": p.of} for p in question.frames]}


def level_dict(gallery: Gallery, level: Level) -> dict[str, Any]:
    """One budget in the JSON."""

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
