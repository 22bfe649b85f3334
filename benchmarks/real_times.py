"""What a user waits for on a real model: SmolLM2-135M-Instruct over a long document, compressed before it is asked about.

    BENCH_THREADS=2 python benchmarks/real_times.py [--tokens 2048] [--rounds 5]

Needs the package of `smollm2` (`laconic.load`) and an idle machine. Methods take turns within each round, and the medians of
rounds are written to results/real-times.json, from which `python -m tools.pages.leaderboard_real` fills the table of the
README. The time to the first token begins when the document is handed over and includes reading it, compressing it and
reading the question.
"""

from __future__ import annotations

import argparse
import statistics

from common import save, say

import laconic
from laconic.engine.engine import Engine, Request
from laconic.tasks import find_task
from laconic.tasks.task import EVALUATION_SEED

PICKS = (
    None,
    "kvzip:keep=0.25",
    "kvzip:keep=0.1",
    "attention_matching:keep=0.1",
    "kivi:bits=4",
    "expected_attention:keep=0.25",
)
"""What is timed: the uncompressed model in transformers' own cache, and methods with their budgets."""
NEW_TOKENS = 33


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, default=2048)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    model, tokenizer = laconic.load("smollm2")
    engine = Engine(model, tokenizer)
    sample = find_task("facts").opened(tokens=given.tokens, tokenizer=tokenizer).sample(EVALUATION_SEED)
    found: dict[str, dict[str, list[float]]] = {}
    for number in range(given.rounds + 1):
        for spec in PICKS:
            name = spec or "none"
            methods = None if spec is None else [laconic.create_method(spec)]
            options = {"eos_token_id": [], "pad_token_id": tokenizer.eos_token_id}
            request = Request(
                sample.context, sample.question, methods=methods, mode="later", max_new_tokens=NEW_TOKENS, options=options
            )
            answer = engine.answer(request)
            if number == 0:  # the first round warms up
                say(f"{name}: {answer.compressed.kv_bytes / 2**20:.1f} MiB")
                continue
            row = found.setdefault(name, {"first": [], "token": [], "bytes": []})
            row["first"].append(answer.first_seconds)
            row["token"].append(answer.seconds_per_token or 0.0)
            row["bytes"].append(answer.compressed.kv_bytes)
        say(f"round {number} of {given.rounds}")
    rows = [{"method": name, **{k: statistics.median(v) for k, v in row.items()}} for name, row in found.items()]
    save("real-times", rows, tokens=given.tokens, rounds=given.rounds)


if __name__ == "__main__":
    main()
