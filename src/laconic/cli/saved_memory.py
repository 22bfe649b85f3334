"""`laconic compress --method NAME -o FILE` for learned memories, and `laconic run --memory FILE`, which asks one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from laconic.cli import common
from laconic.cli.options import Options
from laconic.cli.question import Question, check_length, engine_and_methods, request_of
from laconic.loading import load, tokenizer_of
from laconic.measure.units import seconds
from laconic.memory.contract import MemoryMethod
from laconic.memory.memory import Memory
from laconic.memory.store import SegmentStore
from laconic.method import create_method


def question_of(options: Options, path: Path) -> Question:
    """The question put to the memory in `path`.

    Raises:
        InputError: nothing to ask. SavedContextError: a file that does not belong to the model.
    """
    if not options.question.strip():
        raise common.InputError("--memory needs a --question to ask it.")
    if options.context is not None:
        raise common.InputError("--memory stands for the context; drop --context, or --memory.")
    engine, methods = engine_and_methods(options, "later" if options.later else "in view")
    memory = Memory.load(path, engine.model, engine.reader)
    request = replace(request_of(options), memory=memory, methods=methods, system=options.system)
    prompt = engine.prompt(request)
    check_length(options, engine, prompt)
    return Question(options, engine, replace(request, prompt=prompt))


def remember(
    texts: list[str], spec: str, keep: float | None, model: str | None, out: Path | None, reuse: bool, as_json: bool
) -> None:
    """Make the memory of a text, or of several one after another, and write it into a file.

    Args:
        reuse: take segments from the store, and keep new ones there.

    Raises:
        InputError: no model or file. LaconicError: no weights for the model, an empty text, or segments that depend on one
            another.
    """
    if model is None or out is None:
        raise common.InputError(f"--method {spec} makes a memory for one model, in a file; give --model and --out.")
    method = create_method(spec, keep=keep)
    assert isinstance(method, MemoryMethod)
    common.quiet()
    with common.spinner(f"loading {model}"):
        network, reader = load(model)
    with common.spinner("reading"):
        store = SegmentStore() if reuse else None
        memories = [Memory.of(network, tokenizer_of(reader), text, method, store=store) for text in texts]
        memory = memories[0] if len(memories) == 1 else Memory.joined(memories)
    memory.save(out)
    facts = {"file": str(out), "method": str(memory.method), "tokens_in": len(memory.ids), "tokens_out": memory.entries}
    if as_json:
        counts = {"segments": memory.segments, "segments_made": memory.made} if reuse else {}
        common.emit({**facts, "flops": memory.flops, "seconds": memory.seconds, **counts})
        return
    told = (
        "" if not memory.segments else f", {memory.made} of {memory.segments} segments compressed, the others from the store"
    )
    line = f"wrote {out}: {memory}{told}, {seconds(memory.seconds)}"
    common.err().print(line, style="dim", markup=False, soft_wrap=True)
