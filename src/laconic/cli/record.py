"""The JSON of `laconic run`; the keys are stable."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import torch
import transformers

import laconic
from laconic.cli.answering import Run
from laconic.cli.question import Question
from laconic.method import Method


def record(question: Question, run: Run, stock: Run | None) -> dict[str, Any]:
    """A run, beside the uncompressed one when that ran, too."""
    options, prompt, answer, final = question.options, question.prompt, run.answer, run.final
    budget, model = answer.compressed, question.engine.model
    found = {
        "answer": answer.text,
        "answer_prefix": options.answer_prefix,
        "finish": answer.finish,
        "model": options.model_name,
        "methods": [method_dict(m) for m in question.methods],
        "mode": mode(question),
        "chat_template": prompt.templated,
        "prompt": {"tokens": prompt.tokens, "context_tokens": len(prompt.context), "question_tokens": len(prompt.question)},
        "tokens_out": len(answer.ids),
        "asked": budget.asked,
        "achieved": budget.achieved,
        "budget_tokens": budget.tokens_in,
        "layers": final.layers,
        "layers_left_alone": sorted(run.session.left_alone),
        "entries": [
            {"layer": layer, "min": low, "mean": mean, "max": high}
            for layer, (low, mean, high) in zip(final.layers, run.entries, strict=True)
        ],
        "stream": {str(layer): count for layer, count in final.stream.items()},
        "kv_bytes_full": answer.prompt.kv_bytes_full,
        **figures(run),
        **thinking(run),
        "prefill_flops_full": answer.prompt.prefill_flops_full,
        "compared": None if stock is None else compared(run, stock),
        "settings": {
            "dtype": str(model.dtype).removeprefix("torch."),
            "device": str(model.device),
            "max_new_tokens": options.max_new_tokens,
            "sample": options.sample,
            "temperature": options.temperature,
            "seed": options.seed,
            "prefill_chunk_size": options.prefill_chunk_size,
            "protect": options.protect or [],
        },
        "versions": {"laconic": laconic.__version__, "torch": torch.__version__, "transformers": transformers.__version__},
        "warnings": options.warnings,
    }
    return found | images(question, run, stock)


def images(question: Question, run: Run, stock: Run | None) -> dict[str, Any]:
    """The further keys in the JSON of a run with images or sound; text runs have none of them."""
    if run.visual is None:
        return {}
    seen = {
        "images": [
            {"file": f.source, "frame": f.number, "frames": f.of, "width": f.image.width, "height": f.image.height}
            for f in question.frames
        ],
        "encoder_seconds": run.final.encoder_seconds,
        "encoder_seconds_uncompressed": None if stock is None else stock.final.encoder_seconds,
        "visual_in": len(run.visual.numbers),
        "visual": {str(layer): count for layer, count in run.visual.by_layer(run.session).items()},
    }
    if question.sounds:
        named = zip(question.options.audio or (), question.sounds, strict=True)
        seen["sounds"] = [{"file": path, "seconds": sound.seconds, "notes": list(sound.notes)} for path, sound in named]
        seen["audio_in"], seen["audio"] = seen.pop("visual_in"), seen.pop("visual")
        del seen["images"]
    return seen


def method_dict(method: Method) -> dict[str, Any]:
    """A method as set."""
    return {"name": method.name, "budget": vars(method.budget), "parameters": method.parameters()}


def mode(question: Question) -> str:
    """Whether the budget is spent with the question "in view", or the question comes "later"."""
    return question.request.mode


def figures(run: Run) -> dict[str, Any]:
    """The measured figures that compressed and stock runs share. Bytes are of the prompt, and with the answer."""
    return {
        "kv_bytes": run.answer.prompt.kv_bytes,
        "kv_bytes_end": run.final.kv_bytes,
        "peak_memory_bytes": run.answer.peak_memory,
        "memory_kind": run.answer.memory_kind,
        "timed_runs": run.timed,
        "prefill_seconds": run.prefill_seconds,
        "compress_seconds": run.final.compress_seconds,
        "decode_seconds": run.final.decode_seconds,
        "decode_seconds_per_token": run.decode_seconds_per_token,
        "prefill_flops": run.final.prefill_flops,
        "decode_flops": run.final.decode_flops,
        "method_flops": run.final.method_flops,
        "method_decode_flops": run.final.method_decode_flops,
    }


def compared(run: Run, stock: Run) -> dict[str, Any]:
    """The uncompressed answer and figures, and whether the answers agree."""
    return {
        "answer": stock.answer.text,
        "finish": stock.answer.finish,
        "agree": run.answer.ids == stock.answer.ids,
        "first_difference": first_difference(run.answer.ids, stock.answer.ids),
        "tokens_out": len(stock.answer.ids),
        **figures(stock),
        **thinking(stock),
    }


def thinking(run: Run) -> dict[str, Any]:
    """The further key in the JSON of a run of a model that thinks; others have none."""
    return {} if run.thinking is None else {"thinking": asdict(run.thinking)}


def first_difference(a: list[int], b: list[int]) -> int | None:
    """Where two answers part: at a token, or where the shorter one ends; None if they are the same."""
    if a == b:
        return None
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
