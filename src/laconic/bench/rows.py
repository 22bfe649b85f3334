"""What a row says about one sample: scores and costs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from laconic.bench.store import Row
from laconic.engine.engine import Answer

if TYPE_CHECKING:
    from laconic.bench.asking import Reply


def scores(reply: Reply) -> Row:
    """Scores and entirely right answers, means over the turns, and what was answered."""
    task, sample = reply.asked.task, reply.asked.sample
    texts = [answer.text for answer in reply.answers]
    found = [task.score(text, sample, turn) for turn, text in enumerate(texts)]
    right = [task.exact(text, sample, turn) for turn, text in enumerate(texts)]
    return {
        "score": sum(found) / len(found),
        "exact": sum(right) / len(right),
        "turn_scores": found,
        "output": texts,
        "answers": [list(turn.answers) for turn in sample.turns[: len(texts)]],
    }


def costs(answers: Sequence[Answer]) -> Row:
    """Asked and achieved budget, bytes, FLOPs and times. Bytes and FLOPs are of the prompt, when its answer begins."""
    first, last = answers[0], answers[-1]
    cut, prompt = first.compressed, first.prompt
    later = sum(max(0, len(answer.ids) - 1) for answer in answers)
    return {
        "asked": cut.asked,
        "achieved": cut.achieved,
        "tokens_compressed": cut.tokens_in,
        "tokens_prompt": prompt.tokens_in,
        "kv_bytes": prompt.kv_bytes,
        "kv_bytes_full": prompt.kv_bytes_full,
        "kv_bytes_compressed": cut.kv_bytes,
        "kv_bytes_allocated": prompt.kv_bytes_allocated,
        "kv_bytes_end": last.final.kv_bytes,
        "prefill_flops": prompt.prefill_flops,
        "prefill_flops_full": prompt.prefill_flops_full,
        "method_flops": prompt.method_flops,
        "seconds_first_token": first.first_seconds,
        "seconds_per_token": sum(answer.later_seconds for answer in answers) / later if later else None,
        "seconds_compress": last.final.compress_seconds,
        "tokens_out": [len(answer.ids) for answer in answers],
    }
