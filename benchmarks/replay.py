"""What methods that repeat their prompt cost, and what they keep: SmolLM2-135M-Instruct on Python's own documentation.

    python benchmarks/replay.py            # results/replay.json: both parts, about half an hour of one core
    python benchmarks/replay.py --only cost --lengths 1024

cost: prefill of one prompt beside an uncompressed session; FLOPs as sessions count them, and seconds of the processor's time
in this process (several runs in turn, the median), so that other load on the machine counts little.

worth: a passage with facts planted in it is compressed before anything is asked. One teacher-forced pass then reads its
own continuation and questions with their answers; KL(uncompressed || compressed) in nats per token, and the share of
answers of which every token is the most likely one. The chat template is protected and kept beside the share.
One thread, fp32. Texts are topics of `pydoc_data`, which Python brings; nothing was calibrated or trained on them.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import time
from pydoc_data.topics import topics
from typing import Any

import torch
from common import save, say

import laconic

METHODS = (
    "snapkv",
    "expected_attention",
    "kvzip:over=head",
    "kvzip:over=layer",
    "kvzip",
    "kvzip:chunk=512",
    "kvzip_plus",
    "attention_matching",
    "attention_matching:keys=score",
    "attention_matching:over=head",
)
TIMED = ("kvzip:chunk=none", "kvzip", "kvzip_plus", "attention_matching")
SHARES = (0.2, 0.05)
TEXTS = ("compound", "types", "formatstrings")
PASSAGE, CONTINUATION = 1200, 120
PLACES = ("harbour office", "north gate", "old library", "boat house", "glass room", "stone bridge", "mill", "market hall")
Row = dict[str, Any]


class Subject:
    """The model, and how text becomes token ids."""

    def __init__(self) -> None:
        torch.set_num_threads(1)
        self.model, self.tokenizer = laconic.load("smollm2", device="cpu")
        chat = self.tokenizer.apply_chat_template(
            [{"role": "user", "content": "@@"}], tokenize=False, add_generation_prompt=True
        )
        self.head, self.tail = map(self.ids, chat.split("@@"))

    def ids(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])


def passage(subject: Subject, topic: str, seed: int) -> tuple[list[int], list[int], list[tuple[list[int], list[int]]]]:
    """A passage with planted facts, what follows it in the topic, and (question, answer) for each fact."""
    ids, rng = subject.ids(topics[topic]), random.Random(seed)
    text, after = ids[:PASSAGE], ids[PASSAGE : PASSAGE + CONTINUATION]
    codes = rng.sample(range(1000, 10000), len(PLACES))
    for i, (place, code) in reversed(list(enumerate(zip(PLACES, codes, strict=True)))):
        at = PASSAGE * (i + 1) // (len(PLACES) + 1)
        text[at:at] = subject.ids(f"\nThe access code of the {place} is {code}.\n")
    asked = []
    for place, code in zip(PLACES, codes, strict=True):
        question = subject.ids(f"\n\nWhat is the access code of the {place}?") + subject.tail
        asked.append((question, subject.ids(f"The access code of the {place} is {code}.")))
    return text, after, asked


def worth(subject: Subject) -> list[Row]:
    """One row per method and share: means over texts."""
    found: dict[tuple[str, float], list[Row]] = {}
    for seed, topic in enumerate(TEXTS):
        text, after, asked = passage(subject, topic, seed)
        turns, spans = list(after), []
        for question, answer in asked:
            turns += question
            spans.append((len(turns) - 1, len(turns) - 1 + len(answer)))
            turns += answer + subject.ids("<|im_end|>\n<|im_start|>user\n")
        read = torch.tensor([turns])

        def asked_of(*methods: Any, text: list[int] = text, read: torch.Tensor = read) -> tuple[torch.Tensor, Any]:
            protect = (0, len(subject.head))
            with laconic.compress(subject.model, *methods, protect=protect, tokenizer=subject.tokenizer) as session:
                subject.model(torch.tensor([subject.head + text]), logits_to_keep=1)
                stats = session.stats
                with session.hold():
                    logits = subject.model(read, past_key_values=session.cache).logits[0]
            return logits.log_softmax(-1), stats

        truth, _ = asked_of()
        gold = torch.tensor(turns[1:])
        known = [(a, b) for a, b in spans if bool((truth[a:b].argmax(-1) == gold[a:b]).all())]
        answers = torch.tensor([i for a, b in known for i in range(a, b)])
        say(f"{topic}: {len(text)} tokens, {len(known)} of {len(spans)} answers known uncompressed")
        for name in METHODS:
            for share in SHARES:
                keep = (int(share * len(text)) + len(subject.head)) / (len(text) + len(subject.head))
                got, stats = asked_of(laconic.create_method(name, keep=keep))
                kl = (truth.exp() * (truth - got)).sum(-1)
                right = [bool((got[a:b].argmax(-1) == gold[a:b]).all()) for a, b in known]
                row = {"text": topic, "kl_text": float(kl[: len(after) - 1].mean()), "kl_answers": float(kl[answers].mean())}
                row |= {"right": sum(right), "known": len(known), "bytes": stats.kv_bytes / stats.kv_bytes_full}
                found.setdefault((name, share), []).append(row)
                say(f"  {name} {share}: {row}")
    rows = []
    for (name, share), each in found.items():
        means = {key: round(statistics.mean(row[key] for row in each), 4) for key in ("kl_text", "kl_answers", "bytes")}
        counts = {key: sum(row[key] for row in each) for key in ("right", "known")}
        rows.append({"method": name, "share": share, **means, **counts, "texts": each})
    return rows


def cost(subject: Subject, lengths: list[int], runs: int) -> list[Row]:
    """One row per method and length; every run times all methods in turn."""
    rows = []
    ids = subject.ids(topics["specialnames"])
    for tokens in lengths:
        read = torch.tensor([ids[:tokens]])
        seconds: dict[str, list[float]] = {}
        flops: dict[str, int] = {}
        for _ in range(runs):
            for name in ("none", *TIMED):
                methods = [] if name == "none" else [laconic.create_method(name, keep=0.25)]
                with laconic.compress(subject.model, *methods, tokenizer=subject.tokenizer) as session:
                    began = time.process_time()
                    subject.model(read, logits_to_keep=1)
                    seconds.setdefault(name, []).append(time.process_time() - began)
                flops[name] = session.stats.prefill_flops
        middle = {name: statistics.median(times) for name, times in seconds.items()}
        for name in TIMED:
            row = {
                "method": name,
                "tokens": tokens,
                "seconds": round(middle[name], 2),
                "plain_seconds": round(middle["none"], 2),
            }
            row |= {"extra_seconds": round(middle[name] / middle["none"] - 1, 2)}
            row |= {"extra_flops": round(flops[name] / flops["none"] - 1, 2), "runs": runs}
            rows.append(row)
            say(str(row))
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", default=["cost", "worth"], help="cost, worth")
    parser.add_argument("--lengths", nargs="*", type=int, default=[1024, 2048, 4096])
    parser.add_argument("--runs", type=int, default=3)
    arguments = parser.parse_args()
    subject = Subject()
    if "cost" in arguments.only:
        save("replay_cost", cost(subject, arguments.lengths, arguments.runs))
    if "worth" in arguments.only:
        save("replay_worth", worth(subject), topics=list(TEXTS))
    return 0


if __name__ == "__main__":
    sys.exit(main())
