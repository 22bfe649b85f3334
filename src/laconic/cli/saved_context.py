"""`laconic run --cache FILE`: a context is compressed once into a file, which then answers questions."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from laconic.cache.saved import load
from laconic.cli.common import InputError, spinner
from laconic.cli.options import Options
from laconic.cli.question import Question, check_length, engine_and_methods, request_of
from laconic.engine.engine import Engine
from laconic.engine.generation import read_context
from laconic.measure.units import seconds
from laconic.method import Method
from laconic.session import Session


def question_of(options: Options, path: Path) -> Question:
    """The question put to the context in `path`, which is made first if there is no such file.

    Raises:
        InputError: nothing to ask, or options that do not fit the file.
    """
    if not options.question.strip():
        raise InputError("--cache needs a --question to ask the saved context.")
    exists = path.exists()
    if exists and options.method:
        raise InputError(f"{path} exists and records how it was compressed; drop --method, or give another file.")
    if not exists and options.context is None:
        raise InputError(f"{path} does not exist yet; give the --context to compress into it.")
    text = None if options.context is None else options.text()
    engine, methods = engine_and_methods(options, "later")
    origin = f"from {path}"
    if not exists:
        assert text is not None
        text, took = _write(options, engine, methods, text, path)
        origin = f"read in {seconds(took)}, kept in {path}"
    saved = load(path, engine.model, engine.tokenizer)
    if text not in (None, saved.text):
        raise InputError(f"{path} holds another text than --context {options.context}; drop one of them.")
    request = replace(request_of(options), saved=saved, methods=saved.methods, mode="later")
    prompt = engine.prompt(request)
    check_length(options, engine, prompt)
    return Question(options, engine, replace(request, prompt=prompt), origin=origin)


def _write(options: Options, engine: Engine, methods: list[Method], text: str, path: Path) -> tuple[str, float]:
    """Compress `text` into a file -> what the model has read of it, and the seconds that this took."""
    request = replace(request_of(options), context=text, system=options.system, methods=methods, mode="later")
    request = engine.shortened(request)
    ids = engine.prompt(request).context
    session = Session(engine.model, request.methods or (), request.protect, engine.tokenizer)
    with spinner(f"compressing the context into {path}"), session:
        read_context(session, ids, options.prefill_chunk_size)
        session.save_cache(
            path,
            input_ids=torch.tensor([ids]),
            tokenizer=engine.tokenizer,
            text=request.context,
            system=options.system,
        )
        return request.context, session.stats.prefill_seconds
