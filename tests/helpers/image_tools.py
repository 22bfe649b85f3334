"""What the tests of the bench over images share: a small random LLaVA, token methods for tests, and made-up rows."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import LlavaForConditionalGeneration

from laconic.bench.grid import Cell
from laconic.method import CATALOGUE, register
from laconic.stream.assemble import assemble
from laconic.stream.contract import Cut, Stream, TokenMethod
from laconic.testbed.vlm_model import build_model, build_processor, build_tokenizer


def small_vlm() -> tuple[LlavaForConditionalGeneration, Any]:
    """The testbed's LLaVA with random weights, three decoder layers and two of the encoder, and its processor."""
    config = build_model().config
    config.text_config.num_hidden_layers = 3
    config.vision_config.num_hidden_layers = 2
    torch.manual_seed(0)
    model = LlavaForConditionalGeneration(config).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim == 2 and "embed" not in name:
                weight.mul_(4)
    return model, build_processor(build_tokenizer())


def save_small_vlm(folder: Path) -> Path:
    """The same as a checkpoint."""
    for part in small_vlm():
        part.save_pretrained(folder)
    return folder


def enter_methods() -> list[str]:
    """Two token methods for tests, in the catalogue: the first tokens stay, from the input on or from layer 2 on."""

    @register("test_first", site="tokens", modality="image", mechanism="pruning", source="test", query_aware=False)
    @dataclass(kw_only=True)
    class First(TokenMethod):
        """Keeps the first visual tokens."""

        def cut(self, stream: Stream) -> Cut | None:
            layer = self.cuts(stream.depth)[0]
            kept = []
            for b in range(len(stream.hidden)):
                at = stream.images(b)
                mean = self.allowance(len(at), len(stream.texts(b)), stream.entry_bytes)
                kept.append(at[: max(1, round(self.mean_after(mean, len(at), layer, stream.depth)))])
            return assemble(stream, kept)

    @register("test_late", site="tokens", modality="image", mechanism="pruning", source="test", query_aware=True)
    @dataclass(kw_only=True)
    class Late(First):
        """The same before layer 2 of 3, so that less than two thirds cannot be reached."""

        def cuts(self, depth: int) -> tuple[int, ...]:
            return (2,)

    return ["test_first", "test_late"]


def leave_methods(names: list[str]) -> None:
    for name in names:
        del CATALOGUE[name]


def made_up(
    method: str,
    keep: float,
    number: int,
    score: float,
    *,
    task: str = "colour",
    flops: int = 100,
    own: int = 0,
    hard: bool = False,
    **facts: Any,
) -> dict[str, Any]:
    """A row over images as the runner writes it, `flops` of 1,000 spent by the model and `own` by the method."""
    cell = Cell(task, 0, "images", method, keep, number)
    return {
        "key": cell.key,
        "task": task,
        "length": 0,
        "mode": "images",
        "method": method,
        "site": None,
        "query_aware": False,
        "keep": keep,
        "seed": number,
        "grid_seed": 0,
        "score": score,
        "exact": score,
        "hard": hard,
        "turn_scores": [score],
        "output": ["yes" if score else "no"],
        "answers": [["yes"]],
        "facts": facts,
        "batch": 2,
        "asked": keep,
        "achieved": keep,
        "kv_bytes": int(1000 * keep),
        "kv_bytes_full": 1000,
        "prefill_flops": flops,
        "prefill_flops_full": 1000,
        "method_flops": own,
        "flops_share": (flops + own) / 1000,
        "seconds_first_token": 0.02,
        "seconds_per_token": 0.003,
        "seconds_compress": 0.001,
        "peak_memory": 2**28,
        "peak_memory_kind": "process_peak",
        "settings": {
            "model": "made/up",
            "versions": {"laconic": "0.1.0"},
            "parameters": {},
            "budget": "all" if method == "none" else f"keep={keep:g}",
        },
        "machine": {"system": "Linux"},
    }
