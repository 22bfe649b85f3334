"""`laconic run`: one question about one context, answered from a compressed memory, with the figures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from laconic.cli import common
from laconic.cli import options as o

if TYPE_CHECKING:
    from transformers.generation.streamers import BaseStreamer

    from laconic.cache.saved import SavedContext
    from laconic.cli.engine import Result, Run
    from laconic.cli.options import Request
    from laconic.media import Frame
    from laconic.method import Method
    from laconic.prompts.text import Prompt


def run(
    model: o.AnyModel = None,
    method: o.Methods = None,
    keep: o.Keep = None,
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
    cache: o.CacheFile = None,
    prefill_chunk_size: o.Chunk = None,
    compare: Annotated[bool, typer.Option("--compare", help="The uncompressed model beside it.")] = False,
    dtype: o.Dtype = "auto",
    device: o.Device = None,
    seed: o.Seed = 0,
    sample: o.Sample = False,
    temperature: o.Temperature = None,
    as_json: o.Json = False,
    trust_remote_code: o.Trust = False,
) -> None:
    """Answer a question about a text or images from a compressed memory, and say what that cost.

    Example: laconic run --method snapkv --keep 0.1 --context notes.txt --question "What is the code for falcon?" --compare
    """
    request = o.Request(
        model=o.model_for(model, bool(image or video)),
        method=method,
        keep=keep,
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
    if cache is not None:
        if request.sees:
            raise common.InputError("--cache holds texts; drop --image and --video, or --cache.")
        from laconic.cli.cache import opened

        loaded, tokenizer, prompt, saved = opened(request, Path(cache).expanduser())
        _answer(request, loaded, tokenizer, prompt, list(saved.methods), compare, as_json, saved)
        return
    text = request.text()
    images = request.images()
    with common.spinner("importing torch and transformers"):
        methods = request.methods()
    loaded, tokenizer = request.load()
    prompt = request.prompt(tokenizer, text, images)
    request.check_length(loaded, prompt)
    _answer(request, loaded, tokenizer, prompt, methods, compare, as_json, images=images)


def _answer(
    request: Request,
    model: Any,
    tokenizer: Any,
    prompt: Prompt,
    methods: list[Method],
    compare: bool,
    as_json: bool,
    saved: SavedContext | None = None,
    images: Sequence[Frame] = (),
) -> None:
    from laconic.cli import engine, panel

    console = common.out()
    live = console.is_terminal and not as_json
    streamer: BaseStreamer | None = None
    if live:
        from laconic.cli.stream import Streamer

        console.print(common.clean(request.answer_prefix), style="dim", end="", markup=False)
        streamer = Streamer(tokenizer, console)
        done = engine.compressed(model, tokenizer, prompt, methods, request, streamer=streamer, saved=saved)
    else:
        done = engine.compressed(model, tokenizer, prompt, methods, request, saved=saved)
    full = None
    if compare:
        with common.spinner("the uncompressed model answers"):
            full = engine.stock(model, tokenizer, prompt, request, done.session)
    if as_json:
        common.emit(record(request, model, prompt, methods, done, full) | seen(done, full, images))
        return
    if not live:
        console.print(common.clean(request.answer_prefix + done.result.text), markup=False, soft_wrap=True)
    console.print(panel.panel(request, model, prompt, methods, done, full, images))


def record(
    request: Request, model: Any, prompt: Prompt, methods: list[Method], done: Run, full: Result | None
) -> dict[str, Any]:
    """The JSON of a run; the keys are stable."""
    import torch
    import transformers

    import laconic
    from laconic.cli.engine import compressed_shape

    budget, final, shape = done.budget, done.final, compressed_shape(done.session)
    return {
        "answer": done.result.text,
        "answer_prefix": request.answer_prefix,
        "finish": done.result.finish,
        "model": request.model,
        "methods": [method_dict(m) for m in methods],
        "mode": "query-agnostic" if request.query_agnostic else "query-aware",
        "chat_template": prompt.templated,
        "prompt": {"tokens": prompt.tokens, "context_tokens": len(prompt.context), "question_tokens": len(prompt.question)},
        "tokens_out": len(done.result.ids),
        "asked": budget.asked,
        "achieved": budget.achieved,
        "budget_tokens": budget.tokens_in,
        "layers": final.layers,
        "layers_left_alone": [i for i in range(done.session.shape.layers) if i not in final.layers],
        "entries": [
            {"layer": layer, "min": low, "mean": mean, "max": high}
            for layer, (low, mean, high) in zip(final.layers, done.result.entries, strict=True)
        ],
        "stream": {str(layer): count for layer, count in final.stream.items()},
        "kv_bytes": done.result.kv_bytes_prompt,
        "kv_bytes_full": prompt.tokens * _entry_bytes(done),
        "kv_bytes_end": done.result.kv_bytes_end,
        **figures(done.result),
        "prefill_flops_full": shape.prefill_flops([prompt.tokens] * shape.layers),
        "compared": None if full is None else compared(done.result, full),
        "settings": {
            "dtype": str(model.dtype).removeprefix("torch."),
            "device": str(model.device),
            "max_new_tokens": request.max_new_tokens,
            "sample": request.sample,
            "temperature": request.temperature,
            "seed": request.seed,
            "prefill_chunk_size": request.prefill_chunk_size,
            "protect": request.protect or [],
        },
        "versions": {"laconic": laconic.__version__, "torch": torch.__version__, "transformers": transformers.__version__},
        "warnings": request.warnings,
    }


def seen(done: Run, full: Result | None, images: Sequence[Frame]) -> dict[str, Any]:
    """What the JSON of a run with images has besides; the keys are stable, and text runs have none of them."""
    if done.seen is None:
        return {}
    return {
        "images": [
            {"file": p.source, "frame": p.number, "frames": p.of, "width": p.image.width, "height": p.image.height}
            for p in images
        ],
        "encoder_seconds": done.result.encoder_seconds,
        "encoder_seconds_uncompressed": None if full is None else full.encoder_seconds,
        "visual_in": len(done.seen.tokens),
        "visual": {str(layer): count for layer, count in done.seen.by_layer(done.session).items()},
    }


def method_dict(method: Method) -> dict[str, Any]:
    """A method as set."""
    return {"name": method.name, "budget": vars(method.budget), "parameters": method.parameters()}


def figures(result: Result) -> dict[str, Any]:
    """The measured figures that compressed and stock runs share."""
    return {
        "peak_memory_bytes": result.peak_memory,
        "memory_kind": result.memory_kind,
        "prefill_seconds": result.prefill_seconds,
        "compress_seconds": result.compress_seconds,
        "decode_seconds": result.decode_seconds,
        "decode_seconds_per_token": per_token(result),
        "prefill_flops": result.prefill_flops,
        "decode_flops": result.decode_flops,
    }


def compared(mine: Result, full: Result) -> dict[str, Any]:
    """The uncompressed answer and figures, and whether the answers agree."""
    same = next((i for i, (a, b) in enumerate(zip(mine.ids, full.ids, strict=False)) if a != b), None)
    return {
        "answer": full.text,
        "finish": full.finish,
        "agree": mine.ids == full.ids,
        "first_difference": None if mine.ids == full.ids else min(len(mine.ids), len(full.ids)) if same is None else same,
        "tokens_out": len(full.ids),
        "kv_bytes": full.kv_bytes_prompt,
        "kv_bytes_end": full.kv_bytes_end,
        **figures(full),
    }


def per_token(result: Result) -> float | None:
    """Seconds per decoded token; None when nothing was decoded after the first token."""
    return result.decode_seconds / result.decoded if result.decoded else None


def _entry_bytes(done: Run) -> int:
    return round(done.budget.kv_bytes_full / done.budget.tokens_in) if done.budget.tokens_in else 0
