"""What the tests of the bench share: a tiny random model with the testbed's tokenizer, and made-up rows."""

import re
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from laconic.bench.grid import Cell, Grid
from laconic.engine.engine import Engine, Request
from laconic.shipped import model_path

GRID = Grid(("single", "kvturns"), ("random", "snapkv:window=8"), (0.5, 0.1), (128,), ("aware", "agnostic", "turns"), 2)


def tiny() -> tuple[LlamaForCausalLM, Any]:
    """A random Llama of two layers that speaks the testbed's tokens."""
    tokenizer = AutoTokenizer.from_pretrained(model_path("testbed/lm"))
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=2048,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return LlamaForCausalLM(config).eval(), tokenizer


def written(engine: Engine, context: str, question: str) -> str:
    """A word of the first tokens that a random model writes: what it can be said to know."""
    answer = engine.answer(Request(context=context, question=question, methods=(), max_new_tokens=6))
    return max(re.findall(r"[a-z0-9]+", engine.tokenizer.decode(answer.ids).lower()), key=len)


def save_tiny(folder: Path) -> Path:
    """The same model as a checkpoint."""
    for part in tiny():
        part.save_pretrained(folder)
    return folder


def made_up(cell: Cell, score: float) -> dict[str, Any]:
    """A row as the runner writes it, with figures that follow from the cell."""
    keep = cell.keep or 1.0
    full = 1000 * cell.length
    method = cell.build()
    return {
        "key": cell.key,
        "task": cell.task,
        "length": cell.length,
        "mode": cell.mode,
        "method": cell.method,
        "site": None if method is None else "cache",
        "query_aware": None if method is None else cell.method.startswith("snapkv"),
        "keep": cell.keep,
        "seed": cell.seed,
        "grid_seed": 0,
        "score": score,
        "exact": float(score == 1),
        "turn_scores": [score],
        "output": ["4815263."],
        "answers": [["4815263"]],
        "asked": keep,
        "achieved": keep,
        "tokens_compressed": cell.length,
        "tokens_prompt": cell.length,
        "kv_bytes": int(keep * full),
        "kv_bytes_full": full,
        "kv_bytes_compressed": int(keep * full),
        "kv_bytes_allocated": int(keep * full),
        "kv_bytes_end": int(keep * full),
        "prefill_flops": 95 if cell.mode == "agnostic" else 100,
        "prefill_flops_full": 100,
        "method_flops": 0,
        "seconds_first_token": 0.02,
        "seconds_per_token": 0.003,
        "seconds_compress": 0.001 if method else 0.0,
        "tokens_out": [8],
        "peak_memory": 2**28,
        "peak_memory_kind": "process_peak",
        "notes": [],
        "settings": {
            "schema": 1,
            "model": "made/up",
            "weights": "0123456789ab",
            "versions": {"laconic": "0.1.0", "python": "3.11.7"},
            "parameters": {} if method is None else method.parameters(),
            "budget": "all" if method is None else str(method.budget),
        },
        "machine": {"system": "Linux", "cpu": "some cpu", "cores": 2, "gpu": None, "threads": 1},
    }
