"""From the options of `run` and `inspect` to a loaded model and a request with its prompt."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from transformers import PreTrainedModel

from laconic.cli.clip import clip_of
from laconic.cli.common import InputError, quiet, spinner
from laconic.cli.options import Options
from laconic.cli.picked import is_picked, picked
from laconic.engine.engine import Engine
from laconic.engine.request import Mode, Request
from laconic.families.vision import vision_family_of
from laconic.loading import load
from laconic.media import Frame, gather
from laconic.media.arrange import arranged, arranges
from laconic.media.audio import Sound, load_sound
from laconic.method import Method, Span
from laconic.prompts.media import reads_videos
from laconic.prompts.sound import hears
from laconic.prompts.text import Prompt
from laconic.shortening.contract import to_apply
from laconic.specs import create_methods

TRAINED_TOKENS = {
    "testbed/lm": 2048,
    "testbed/facts": 90,
    "testbed/reasoner": 300,
    "testbed/audio": 160,
    "testbed/video": 330,
    "testbed/vlm": 192,
    "testbed/vlm-large": 800,
}
"""Longest chats that a testbed model was trained on; its positions reach further."""


@dataclass
class Question:
    """What is asked, ready to be answered.

    Attributes:
        request: its prompt has been built.
        frames: what `--image` and `--video` show. `sounds`: what `--audio` gives.
        origin: of a context that was read before the question, where it comes from.
    """

    options: Options
    engine: Engine
    request: Request
    frames: Sequence[Frame] = ()
    sounds: Sequence[Sound] = ()
    origin: str = ""

    @property
    def prompt(self) -> Prompt:
        """Of the request."""
        assert self.request.prompt is not None
        return self.request.prompt

    @property
    def methods(self) -> list[Method]:
        """What compresses."""
        return list(self.request.methods or ())

    @property
    def later(self) -> bool:
        """The context is compressed before the question is known."""
        return self.request.mode == "later"

    def with_methods(self, methods: Sequence[Method]) -> Question:
        """The same question put to other methods."""
        return replace(self, request=replace(self.request, methods=methods))


def question_of(options: Options, context: str, methods: Sequence[Method] | None = None) -> Question:
    """Open images and sounds, load the model and build the prompt.

    Args:
        context: the text that `options` names.
        methods: in place of those that the options name.

    Raises:
        InputError: no such model, images or sounds for a model that takes none, or nothing to compress before the question.
        MediaError: an image that cannot be shown, or a sound that cannot be heard.
    """
    frames, sounds = frames_of(options), sounds_of(options)
    if methods is None:
        engine, methods = engine_and_methods(options, "later" if options.later else "in view")
    else:
        engine = engine_of(options)
    stills, clip = len(options.image or ()), None
    if options.video is not None:
        takes = not options.as_images and not arranges(methods) and reads_videos(engine.model, engine.reader)
        if takes and len(frames) > stills + 1:
            clip, notes = clip_of(frames[stills:])
            options.warnings += notes
        elif takes:
            options.warnings.append(f"{options.video}: a video of one frame is shown as an image.")
        else:
            frames = arranged(frames, stills, methods, vision_family_of(engine.model).image_side(engine.model))
    shown = [frame.image for frame in (frames if clip is None else frames[:stills])]
    heard = [sound.samples for sound in sounds]
    request = replace(request_of(options), context=context, images=shown, clip=clip, sounds=heard, methods=methods)
    request = replace(request, system=options.system)
    with spinner("shortening the context") if to_apply(methods) else nullcontext():
        request = engine.shortened(request)
    prompt = engine.prompt(request)
    if options.later and not (prompt.context and prompt.question):
        raise InputError("--later needs a context and a question after it.")
    check_length(options, engine, prompt)
    if not options.question.strip():
        options.warnings.append("no --question: the model goes on from what it is shown.")
    return Question(options, engine, replace(request, prompt=prompt), frames, sounds)


def request_of(options: Options) -> Request:
    """How the question is to be answered, without the context and the methods."""
    return Request(
        question=options.question,
        answer_prefix=options.answer_prefix,
        protect=[_span(text) for text in options.protect or ()],
        mode="later" if options.later else "in view",
        max_new_tokens=options.max_new_tokens,
        sample=options.sample,
        temperature=options.temperature,
        seed=options.seed,
        chunk=options.prefill_chunk_size,
    )


def engine_and_methods(options: Options, mode: Mode) -> tuple[Engine, list[Method]]:
    """The model and its methods: those that are named, refused before it is loaded, or those that were picked for it.

    Args:
        mode: in which the context will be compressed.
    """
    if not is_picked(options):
        methods = methods_of(options)
        return engine_of(options), methods
    engine = engine_of(options)
    return engine, picked(options, engine, mode)


def methods_of(options: Options) -> list[Method]:
    """The methods, with the common budget where their text names none."""
    with spinner("importing the methods"):
        return create_methods(options.method or (), keep=options.keep, tokens=options.tokens, bytes=options.nbytes)


def frames_of(options: Options) -> list[Frame]:
    """What `--image` and `--video` show.

    Raises:
        MediaError: one of them cannot be shown.
    """
    shown, notes = gather(options.image or (), options.video, options.frames)
    options.warnings += notes
    return shown


def sounds_of(options: Options) -> list[Sound]:
    """What `--audio` gives.

    Raises:
        MediaError: one of them cannot be read.
    """
    sounds = [load_sound(path) for path in options.audio or ()]
    options.warnings += [
        f"{path}: {note}" for path, sound in zip(options.audio or (), sounds, strict=True) for note in sound.notes
    ]
    return sounds


def loaded(options: Options) -> tuple[PreTrainedModel, Any]:
    """The model, and its tokenizer or processor.

    Raises:
        InputError: no such model, or a device that is not there.
    """
    quiet()
    name = options.model_name
    try:
        if options.device is not None:
            torch.empty(0, device=options.device)
        dtype = options.dtype if options.dtype == "auto" else getattr(torch, options.dtype)
        with spinner(f"loading {name}"):
            return load(name, dtype=dtype, device=options.device, trust_remote_code=options.trust_remote_code)
    except (OSError, ValueError, RuntimeError, AssertionError, ImportError) as error:
        raise InputError(f"cannot load --model {name}: {_first_line(error)}") from error


def engine_of(options: Options) -> Engine:
    """The model.

    Raises:
        InputError: no such model, a device that is not there, or images or sounds for a model that takes none.
    """
    name, engine = options.model_name, Engine(*loaded(options))
    if options.sees and engine.reader is engine.tokenizer:
        raise InputError(
            f"--model {name} is a {engine.model.config.model_type} model, which laconic cannot show images; drop "
            "--image and --video, or give a vision language model."
        )
    if options.hears and not hears(engine.reader):
        raise InputError(
            f"--model {name} is a {engine.model.config.model_type} model, which laconic cannot give sound; drop --audio, or "
            "give a model that hears, such as a Qwen2-Audio model."
        )
    return engine


def check_length(options: Options, engine: Engine, prompt: Prompt) -> None:
    """Warn about a prompt that is longer than the model's positions, or than what it was trained on."""
    text = engine.model.config.get_text_config()
    limit = getattr(text, "max_position_embeddings", None)
    if limit and prompt.tokens + options.max_new_tokens > limit:
        options.warnings.append(
            f"prompt and answer take {prompt.tokens} + {options.max_new_tokens} tokens, but the model has {limit} "
            "positions; its answers beyond them are not to be trusted."
        )
    trained = getattr(text, "trained_tokens", None) or TRAINED_TOKENS.get(options.model_name)
    if trained and prompt.tokens > trained:
        options.warnings.append(
            f"the prompt has {prompt.tokens:,} tokens, but {options.model_name} was trained on chats of at most {trained:,}."
        )


def _span(text: str) -> str | Span:
    match = re.fullmatch(r"(\d+):(\d+)", text)
    return (int(match[1]), int(match[2])) if match else text


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
