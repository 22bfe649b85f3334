"""`laconic inspect`: the same run, and an HTML page that shows what every layer and head kept of the text or the image."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from laconic.cli import common
from laconic.cli import options as o

if TYPE_CHECKING:
    from laconic.cli.engine import Run
    from laconic.cli.options import Request
    from laconic.method import Method
    from laconic.prompts.text import Prompt
    from laconic.report.kept import Kept
    from laconic.session import Session


def inspect(
    model: o.AnyModel = None,
    method: o.Methods = None,
    keep: Annotated[
        str | None, typer.Option("--keep", help="Share of the tokens kept, 0 < keep <= 1; with --image several: 0.5,0.25.")
    ] = None,
    tokens: o.Tokens = None,
    nbytes: o.Bytes = None,
    context: o.Context = None,
    image: o.Image = None,
    video: o.Video = None,
    frames: o.Frames = None,
    question: o.Question = "",
    answer_prefix: o.AnswerPrefix = "",
    system: o.System = None,
    protect: o.Protect = None,
    max_new_tokens: o.MaxNewTokens = 64,
    query_agnostic: o.QueryAgnostic = False,
    prefill_chunk_size: o.Chunk = None,
    out: Annotated[str | None, typer.Option("--out", "-o", help="HTML file; inspect.html, or none with --json.")] = None,
    png: Annotated[str | None, typer.Option("--png", help="With --image: the images of the page as one PNG file.")] = None,
    lens: Annotated[
        str | None,
        typer.Option("--lens", help="With --image: embedlens reads words in the patches; embedlens:FILE classes, too."),
    ] = None,
    dtype: o.Dtype = "auto",
    device: o.Device = None,
    seed: o.Seed = 0,
    sample: o.Sample = False,
    temperature: o.Temperature = None,
    as_json: o.Json = False,
    trust_remote_code: o.Trust = False,
) -> None:
    """Show which tokens or image patches a method kept, per layer, as an HTML page or JSON.

    Example: laconic inspect --method adakv --keep 0.1 --context notes.txt --question "What is the code for falcon?"

    Example: laconic inspect --model LLAVA --image street.jpg --method fastv --keep 0.5,0.25 -q "What does the sign say?"
    """
    keeps = _keeps(keep)
    request = o.Request(
        model=o.model_for(model, bool(image or video)),
        method=method,
        keep=keeps[0] if keeps else None,
        tokens=tokens,
        nbytes=nbytes,
        context=context,
        question=question,
        answer_prefix=answer_prefix,
        system=system,
        protect=protect,
        max_new_tokens=max_new_tokens,
        query_agnostic=query_agnostic,
        prefill_chunk_size=prefill_chunk_size,
        dtype=dtype,
        device=device,
        seed=seed,
        sample=sample,
        temperature=temperature,
        trust_remote_code=trust_remote_code,
        image=image,
        video=video,
        frames=frames,
    )
    if request.sees:
        from laconic.cli.inspect_image import inspect_image

        page = None if out is None and (as_json or png is not None) else _target(out or "inspect.html")
        sheet = None if png is None else _target(png, "--png")
        inspect_image(request, keeps, lens, page, sheet, as_json)
        return
    if png is not None or lens is not None:
        raise common.InputError(f"{'--lens' if png is None else '--png'} is about images; give --image.")
    if keeps is not None and len(keeps) > 1:
        raise common.InputError(f"--keep {keep}: several shares go with --image only; give one.")
    path = None if out is None and as_json else _target(out or "inspect.html")
    text = request.text()
    methods = request.methods()
    loaded, tokenizer = request.load()
    prompt = request.prompt(tokenizer, text)
    request.check_length(loaded, prompt)
    done, kept = _kept(request, loaded, tokenizer, prompt, methods)
    if path is not None:
        path.write_text(_page(request, tokenizer, prompt, methods, done, kept), encoding="utf-8")
    if as_json:
        common.emit(record(request, prompt, methods, done, kept, path))
        return
    assert path is not None
    console = common.out()
    console.print(common.clean(request.answer_prefix + done.result.text), markup=False, soft_wrap=True)
    for warning in request.warnings:
        common.err().print(f"warning: {warning}", style="yellow", markup=False, soft_wrap=True)
    console.print(
        f"{path}: {prompt.tokens:,} tokens, asked {done.budget.asked:.2%}, achieved {done.budget.achieved:.2%}",
        markup=False,
        soft_wrap=True,
    )


def _keeps(text: str | None) -> list[float] | None:
    """Shares as given: one, or several with commas."""
    if text is None:
        return None
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not a number, or numbers with commas.", param_hint="--keep") from None


def _target(out: str, option: str = "--out") -> Path:
    """Refuse a file that cannot be written before a model is loaded."""
    path = Path(out).expanduser()
    if path.is_dir() or not path.parent.is_dir():
        raise common.InputError(f"{option} {out}: give a file in a folder that exists.")
    return path


def _kept(request: Request, model: Any, tokenizer: Any, prompt: Prompt, methods: list[Method]) -> tuple[Run, Kept]:
    """Run, and read off the cache when the prompt is in it and nothing has been decoded."""
    from laconic.cli import engine
    from laconic.report.kept import Kept

    indices: dict[int, list[Any]] = {}

    def ready(session: Session) -> None:
        cache = session.cache
        assert cache is not None
        for layer, number in zip(cache.compressed(), cache.layer_ids, strict=True):
            indices[number] = [session.kept(number, head).tolist() for head in range(layer.lengths.shape[1])]

    with common.spinner("reading and answering"):
        done = engine.compressed(model, tokenizer, prompt, methods, request, ready=ready)
    stream, first = _stream(done, prompt, request)
    return done, Kept(prompt.tokens, indices, stream, first)


def _stream(done: Run, prompt: Prompt, request: Request) -> tuple[list[int] | None, int | None]:
    """Tokens that travelled on behind the layer that chose them; None when no layer left any behind."""
    chosen: set[int] = set()
    source, number, chunk = None, 0, request.prefill_chunk_size or 0
    layer = next((e.layer for e in done.session.trace.events if e.stream is not None), None)
    for event in done.session.trace.events:
        if event.layer != layer:
            continue
        start, number = number * chunk, number + 1
        if event.stream is not None:
            source = layer
            chosen |= {start + i for i in event.stream[0].tolist()}
        else:  # this chunk travelled on as a whole
            chosen |= set(range(start, min(start + chunk, prompt.tokens)))
    if source is None:
        return None, None
    if request.query_agnostic:
        chosen |= set(range(len(prompt.context), prompt.tokens))
    return sorted(i for i in chosen if i < prompt.tokens), source + 1


def record(
    request: Request, prompt: Prompt, methods: list[Method], done: Run, kept: Kept, path: Path | None
) -> dict[str, Any]:
    """The JSON of `inspect`; the keys are stable."""
    from laconic.cli.run import method_dict

    return {
        "model": request.model,
        "methods": [method_dict(m) for m in methods],
        "mode": "query-agnostic" if request.query_agnostic else "query-aware",
        "chat_template": prompt.templated,
        "answer": done.result.text,
        "answer_prefix": request.answer_prefix,
        "asked": done.budget.asked,
        "achieved": done.budget.achieved,
        "tokens": prompt.tokens,
        "question_at": len(prompt.context),
        "ids": prompt.ids,
        "kept": {str(layer): {str(h): list(k) for h, k in enumerate(heads)} for layer, heads in kept.indices.items()},
        "stream": kept.stream,
        "stream_from": kept.stream_from,
        "out": None if path is None else str(path),
        "warnings": request.warnings,
    }


def _page(request: Request, tokenizer: Any, prompt: Prompt, methods: list[Method], done: Run, kept: Kept) -> str:
    from laconic.report.kept import Subject, kept_page
    from laconic.report.pieces import pieces

    facts = [
        ("model", request.model),
        ("method", "; ".join(map(str, methods)) or "none: everything is stored"),
        ("mode", "query-agnostic: the context was compressed first" if request.query_agnostic else "query-aware"),
        ("prompt", f"{prompt.tokens:,} tokens, {'chat template applied' if prompt.templated else 'plain text'}"),
        ("kept", f"asked {done.budget.asked:.2%}, achieved {done.budget.achieved:.2%}"),
    ]
    if request.protect:
        facts.append(("protected", "; ".join(request.protect)))
    if kept.stream is not None:
        facts.append(("stream", f"{len(kept.stream):,} of {kept.tokens:,} tokens travelled on to layer {kept.stream_from}"))
    facts.append(("answer", request.answer_prefix + done.result.text))
    name = " + ".join(m.name for m in methods) or "no method"
    subject = Subject(facts, len(prompt.context), request.warnings)
    return kept_page(f"What {name} kept", subject, kept, pieces(tokenizer, prompt.ids), prompt.ids)
