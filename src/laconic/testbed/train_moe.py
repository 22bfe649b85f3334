"""Trains ``testbed/moe`` on one CPU thread, resumable at any step, and prints how near it comes to what can be known.

    OMP_NUM_THREADS=1 python -m laconic.testbed.train_moe --out runs/moe
    python -m laconic.testbed.train_moe --out runs/moe --resume --decay-at 3000      # continue with other settings
    python -m laconic.testbed.train_moe --evaluate runs/moe
    python -m laconic.testbed.export runs/moe src/laconic/testbed/moe
    python -m laconic.testbed.train_moe --write languages.txt      # rows for fits that learn from a text

Every row is a text of one of eight languages with needles, and questions about all of them in turn; the loss is taken on the
symbols of the language and on the answers. Rows have 64 tokens at first, later up to 128 and 256. The routers have the
balancing loss of their class.
"""

import argparse
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM, AutoTokenizer

from laconic.prompts.text import JOINT
from laconic.tasks.task import EVALUATION_SEED
from laconic.tasks.text.languages import ENTROPY, SYMBOLS, TAGS, TaggedNeedles, compose, needles_in, surprise, write
from laconic.testbed.evaluate import ask
from laconic.testbed.moe_model import build_model, build_tokenizer
from laconic.testbed.optimizers import build_optimizers
from laconic.testbed.staged import StagedTraining

LENGTHS = (64, 128, 256)
TEXT, ANSWER = 1, 2
"""What a token is that a loss is taken on: a symbol that the language decides, or part of an answer or its end."""
GATE, NEAR = 0.95, 1.02
"""Least share of right answers; most of a text's surprise over that under its own table."""


@dataclass(frozen=True)
class Batch:
    """Rows of one length.

    ids [B, n]; kinds [B, n] (0: no loss, `TEXT`, `ANSWER`); asked [B, n]: number of the question that an answer belongs to,
    -1 elsewhere; questions: how many there are; length: index into `LENGTHS`.
    """

    ids: Tensor
    kinds: Tensor
    asked: Tensor
    questions: int
    length: int


class Batches:
    """Draws rows of exactly one length, with all their needles asked for."""

    def __init__(self, tokenizer: Any):
        self.number = tokenizer.get_vocab()
        self.begin, self.end, self.joint = tokenizer.bos_token_id, tokenizer.eos_token_id, self.number[JOINT.strip()]

    def draw(self, rng: random.Random, rows: int, length: int) -> Batch:
        """`rows` rows of ``LENGTHS[length]`` tokens."""
        made, asked = [], 0
        for _ in range(rows):
            row, asked = self._row(rng, LENGTHS[length], asked)
            made.append(row)
        ids, kinds, owner = (torch.tensor([row[i] for row in made]) for i in range(3))
        return Batch(ids, kinds, owner, asked, length)

    def _row(self, rng: random.Random, tokens: int, asked: int) -> tuple[list[list[int]], int]:
        """Ids, kinds and question numbers of one row, and the number of the next question."""
        needles = needles_in(tokens)
        words, turns = compose(rng, tokens - 2 - 4 * needles, needles)
        symbols = [i for i, word in enumerate(words) if word in SYMBOLS]
        kinds = [0] * (tokens - 4 * needles)
        for i in symbols[2:]:
            kinds[1 + i] = TEXT
        ids = [self.begin, *map(self.number.__getitem__, words), self.joint]
        owner = [-1] * len(ids)
        for turn in turns:
            ids += [*(self.number[word] for word in (turn.question, *turn.gold.split())), self.end]
            kinds += [0, ANSWER, ANSWER, ANSWER]
            owner += [-1, asked, asked, asked]
            asked += 1
        return [ids, kinds, owner], asked


class Trainer(StagedTraining):
    """Model, optimizers and curriculum of ``testbed/moe``; it needs no auxiliary heads."""

    kinds = [str(length) for length in LENGTHS]
    stages = tuple(tuple(str(length) for length in LENGTHS[: i + 1]) for i in range(len(LENGTHS)))
    help_name = "text"
    unit = "tokens"

    def __init__(self, args: argparse.Namespace) -> None:
        super().__init__(args)
        tokenizer = build_tokenizer()
        tokenizer.save_pretrained(self.out, save_jinja_files=False)
        self.batches, self.heads = Batches(tokenizer), nn.Module()
        self.model: Any = build_model(tokenizer, args.width, args.neurons)
        # Experts are matrices, too, eight in one tensor; routers are so few rows that they are trained like embeddings.
        named = list(self.model.model.layers.named_parameters())
        matrices = [p for name, p in named if p.ndim > 1 and "mlp.gate.weight" not in name]
        inside = {id(p) for p in matrices}
        others = [p for p in self.model.parameters() if id(p) not in inside]
        self.optimizers = build_optimizers(matrices, others, args.muon_lr, args.lr, exact=True)

    def drawn(self, rng: random.Random) -> Batch:
        weights = self.weights()
        length = self.kinds.index(rng.choices(list(weights), list(weights.values()))[0])
        return self.batches.draw(rng, max(1, self.args.rows // LENGTHS[length]), length)

    def losses(self, batch: Batch) -> tuple[Tensor, Tensor | None, Tensor | None, float]:
        out = self.model(input_ids=batch.ids[:, :-1], use_cache=False, output_router_logits=True)
        targets, kinds = batch.ids[:, 1:], batch.kinds[:, 1:]
        text, answer = kinds == TEXT, kinds == ANSWER
        read, said = (cross_entropy(out.logits[where], targets[where]) for where in (text, answer))
        missed = (out.logits[answer].argmax(-1) != targets[answer]).float()
        wrong = torch.zeros(batch.questions).index_add_(0, batch.asked[:, 1:][answer], missed)
        loss = read + said + self.model.config.router_aux_loss_coef * out.aux_loss
        return loss, wrong == 0, torch.full((batch.questions,), batch.length), read.item() / ENTROPY


@torch.inference_mode()
def read(model: Any, tokenizer: Any, language: int, samples: int) -> tuple[float, float]:
    """Nats of the model, and of the language's own table, over all symbols but the first two of unseen texts."""
    found, known = 0.0, 0.0
    for number in range(EVALUATION_SEED, EVALUATION_SEED + samples):
        text = write(random.Random(f"text-{language}-{number}"), language, LENGTHS[-1] - 2)
        ids = torch.tensor([[tokenizer.bos_token_id, *tokenizer.convert_tokens_to_ids([TAGS[language], *text])]])
        logits = model(input_ids=ids, use_cache=False).logits[0, 3:-1].float()
        found += float(cross_entropy(logits, ids[0, 4:], reduction="sum"))
        known += surprise(text, language)
    return found, known


def needle_scores(model: Any, tokenizer: Any, tokens: int, samples: int) -> list[float]:
    """The score, 0 or 1, of every needle in unseen contexts of so many tokens."""
    task = TaggedNeedles(tokens=tokens, tokenizer=tokenizer)
    drawn = [task.sample(EVALUATION_SEED + i) for i in range(samples)]
    return [
        task.score(answer, sample, turn)
        for turn in range(len(drawn[0].turns))
        for sample, answer in zip(drawn, ask(model, tokenizer, drawn, turn, prefix=False), strict=True)
    ]


def evaluate(folder: Path, samples: int) -> bool:
    """Print how near the languages' entropy the model comes and how many needles it finds; true if both pass their gates."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype="auto").eval()
    pairs = [read(model, tokenizer, language, samples) for language in range(len(TAGS))]
    for tag, (found, known) in zip(TAGS, pairs, strict=True):
        print(f"{tag}: {found / known:.3f} of the entropy", flush=True)
    whole, least = (sum(column) for column in zip(*pairs, strict=True))
    print(f"all languages: {whole / least:.3f} of the entropy (gate {NEAR})", flush=True)
    passed = whole <= NEAR * least
    for tokens in LENGTHS:
        scores = needle_scores(model, tokenizer, tokens, samples)
        share = sum(scores) / len(scores)
        passed = passed and share >= GATE
        print(f"{tokens} tokens: {share:.1%} of {len(scores)} needles found (gate {GATE:.0%})", flush=True)
    print(f"gates {'passed' if passed else 'NOT passed'}")
    return passed


def write_rows(path: Path, count: int) -> None:
    """Rows of all lengths in turn as a text, one on each line, drawn like those of the training."""
    tokenizer = build_tokenizer()
    batches = Batches(tokenizer)
    drawn = (batches.draw(random.Random(f"written-{i}"), 1, i % len(LENGTHS)).ids[0] for i in range(count))
    lines = (" ".join(tokenizer.convert_ids_to_tokens(ids.tolist())) for ids in drawn)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    add = options.add_argument
    add("--out", default="runs/moe", help="folder of checkpoint, optimizer state and log")
    add("--resume", action="store_true", help="continue from the checkpoint in --out")
    add("--evaluate", type=Path, metavar="DIR", help="evaluate the model in DIR and do nothing else")
    add("--samples", type=int, default=100, help="with --evaluate: texts of every language, contexts of every length")
    add("--write", type=Path, metavar="FILE", help="write --count rows as a text and do nothing else")
    add("--count", type=int, default=3000)
    add("--seed", type=int, default=0)
    add("--steps", type=int, default=100_000, help="stop at this step at the latest")
    add("--rows", type=int, default=4096, help="tokens per step, of all rows together")
    add("--width", type=int, default=128)
    add("--neurons", type=int, default=384, help="of each expert")
    add("--lr", type=float, default=3e-3, help="AdamW: embeddings, norms, routers")
    add("--muon-lr", type=float, default=5e-3, help="Muon: the matrices of attention and experts")
    add("--gate", type=float, default=0.95, help="share of right answers that ends a stage")
    add("--stage-steps", type=int, default=800, help="a stage ends after this many steps at the latest")
    add("--decay-at", type=int, default=900, help="step at which the learning rate begins to fall")
    add("--decay-steps", type=int, default=500)
    add("--save-seconds", type=float, default=120)
    return options


def main() -> None:
    """Train, evaluate or write rows; the exit status is 1 if an evaluation misses a gate."""
    args = parser().parse_args()
    torch.set_num_threads(1)
    if args.evaluate:
        raise SystemExit(0 if evaluate(args.evaluate, args.samples) else 1)
    if args.write:
        return write_rows(args.write, args.count)
    trainer = Trainer(args)
    if args.resume:
        trainer.load()
    trainer.run()


if __name__ == "__main__":
    main()
