"""Trains ``testbed/lm``, resumable at any step, on CPU or GPU.

    OMP_WAIT_POLICY=PASSIVE python -m laconic.testbed.train_lm --out runs/lm --workers 2
    python -m laconic.testbed.train_lm --out runs/lm --resume          # continue from the last checkpoint
    python -m laconic.testbed.train_lm --evaluate runs/lm              # the table of the model card

Curriculum: induction on a small alphabet, on the whole vocabulary, then task chats of 128 to 2,048 tokens;
every stage keeps the shorter lengths, prose and some induction in the mixture. ``--decay-steps`` before the
end the learning rate falls linearly to zero. Nothing is unpickled: the optimizer's state is kept in
safetensors and JSON.
"""

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from laconic.fit.checkpoint import load_state, save_state
from laconic.tasks.text.mixture import KINDS, Mixture
from laconic.testbed import evaluate
from laconic.testbed import tokenizer as tokenizer_module
from laconic.testbed.curriculum import STAGES, draw
from laconic.testbed.set_loss import collate, set_loss


def build_model() -> LlamaForCausalLM:
    """A fresh Llama-class model of 1.3 M parameters: 4 layers, 4 query and 2 key-value heads of 32."""
    config = LlamaConfig(
        vocab_size=tokenizer_module.VOCAB_SIZE,
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=4096,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        tie_word_embeddings=True,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    return LlamaForCausalLM(config)


class Trainer:
    """Model, optimizers and curriculum state; everything that a resumed run needs goes through save and load."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args, self.out, self.rank = args, Path(args.out), dist.get_rank()
        # Another Python version has other documentation and would train another tokenizer: a run keeps its own.
        if args.resume:
            self.tokenizer = AutoTokenizer.from_pretrained(self.out)
        else:
            self.tokenizer = tokenizer_module.train()
            if self.rank == 0:
                self.tokenizer.save_pretrained(self.out, save_jinja_files=False)
        self.mixture = Mixture(self.tokenizer, args.dense, args.drill, args.list_sizes)
        torch.manual_seed(args.seed)
        self.model = build_model().to(args.device)
        weights = [p for p in self.model.parameters() if p.ndim == 2 and p is not self.model.lm_head.weight]
        others = [p for p in self.model.parameters() if p.ndim != 2 or p is self.model.lm_head.weight]
        adamw: dict[str, Any] = {"betas": (0.9, 0.98), "weight_decay": 0.01}
        self.optimizers: list[torch.optim.Optimizer] = [torch.optim.AdamW(others, lr=args.lr, **adamw)]
        if args.muon:
            rule: dict[str, Any] = {"adjust_lr_fn": "match_rms_adamw", "weight_decay": 0.01, "momentum": 0.95}
            self.optimizers.append(torch.optim.Muon(weights, lr=args.muon_lr, **rule))
        else:
            self.optimizers.append(torch.optim.AdamW(weights, lr=args.lr, **adamw))
        self.base_lr = [args.lr, args.muon_lr if args.muon else args.lr]
        self.state: dict[str, Any] = {"step": 0, "stage": 0, "stage_step": 0, "tokens": 0, "seconds": 0.0}
        self.state |= {"next_seed": 0, "decay_start": None, "ema": {}}

    def save(self) -> None:
        """Write model, optimizer state and curriculum state into the output folder."""
        if self.rank:
            return
        self.model.save_pretrained(self.out)
        save_state(self.out, self.optimizers, self.state)

    def load(self) -> None:
        """Restore what :meth:`save` wrote."""
        trained = AutoModelForCausalLM.from_pretrained(self.out, dtype=torch.float32)
        self.model.load_state_dict(trained.state_dict())
        self.state = load_state(self.out, self.optimizers)

    def rate(self) -> float:
        """Factor on the learning rates: 100 steps of warm-up, then 1, then the linear decay."""
        return min(1.0, (self.state["step"] + 1) / 100) * max(0.0, self.state.get("left", 1.0))

    def decay(self) -> None:
        """Begin the decay when it is time, and set how much of it is left, by the first worker's clock."""
        minutes, step = self.state["seconds"] / 60, self.state["step"]
        start = self.state["decay_start"]
        if start is None and minutes >= self.args.decay_after:
            start = [step, minutes]
            self.log("-> decay")
        left = 1.0
        if start is not None and self.args.decay_minutes:
            left = 1.0 - (minutes - start[1]) / self.args.decay_minutes
        elif start is not None:
            left = 1.0 - (step - start[0]) / self.args.decay_steps
        shared = torch.tensor([left, *(start or (-1.0, 0.0))], dtype=torch.float64)
        dist.broadcast(shared, 0)
        left, *start = shared.tolist()
        self.state |= {"left": left, "decay_start": start if start[0] >= 0 else None}

    def step(self) -> None:
        """One optimizer step on one batch, with the accuracies of its kinds folded into the running means."""
        label, tokens, examples = draw(self.mixture, self.args, self.state, self.rank)
        ids, at, accept, weight, kind = collate(examples, tokens, self.args.device)
        device = self.args.device.split(":")[0]
        with torch.autocast(device, torch.bfloat16, enabled=self.args.bf16):
            hidden = self.model.model(input_ids=ids, use_cache=False).last_hidden_state
            logits = self.model.lm_head(hidden.flatten(0, 1)[at])
        loss, hits = set_loss(logits.float(), accept, weight)
        loss.backward()
        # Accuracy per kind travels with the gradients: hits and counts of kinds, then the loss.
        scores = torch.zeros(len(KINDS), 2, device=ids.device)
        scores.index_add_(0, kind, torch.stack([hits.float(), torch.ones_like(weight)], 1))
        scores = self.average(torch.cat([scores.flatten(), loss.detach()[None]]))
        self.state["loss"] = round(scores[-1].item(), 3)
        per_kind = scores[:-1].view(-1, 2)
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optimizer, base in zip(self.optimizers, self.base_lr, strict=True):
            for group in optimizer.param_groups:
                group["lr"] = base * self.rate()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        if label == "relation":
            self.fold(label, (per_kind[1, 0] / per_kind[1, 1]).item())
        elif label in ("prose", "induction"):
            self.fold(label, (per_kind[:, 0].sum() / per_kind[:, 1].sum()).item())
        else:
            for name, (right, count) in zip(KINDS, per_kind.tolist(), strict=True):
                if count:
                    self.fold(name if label == "now" else f"{name}@{label}", right / count)
        self.state["step"] += 1
        self.state["stage_step"] += 1
        self.state["tokens"] += ids.numel() * self.args.workers

    def average(self, extra: Tensor) -> Tensor:
        """Average the gradients, in place, and ``extra`` [N] over the workers; returns the averaged
        ``extra``.
        """
        grads = [p.grad for p in self.model.parameters() if p.grad is not None]
        flat = torch.cat([*(grad.flatten() for grad in grads), extra])
        dist.all_reduce(flat)
        flat /= self.args.workers
        for grad, part in zip(grads, flat[: -len(extra)].split([grad.numel() for grad in grads]), strict=True):
            grad.copy_(part.view_as(grad))
        return flat[-len(extra) :]

    def fold(self, name: str, value: float) -> None:
        """Fold an accuracy into its running mean (over all so far, then over about 25)."""
        mean, seen = self.state["ema"].get(name, (0.0, 0))
        self.state["ema"][name] = (mean + (value - mean) * max(0.04, 1 / (seen + 1)), seen + 1)

    def advance(self) -> None:
        """Move to the next stage when every kind passes, or when the stage has had its share of steps."""
        kind, _, _, gate = STAGES[self.state["stage"]]
        ema = self.state["ema"]
        names = KINDS[1:] if kind == "task" else (kind,)
        passed = all(ema.get(name, (0.0, 0))[1] >= 25 and ema[name][0] > gate for name in names)
        late = kind == "task" and self.state["stage_step"] > self.args.stage_steps
        if self.state["stage"] + 1 < len(STAGES) and (passed or late):
            self.state["stage"] += 1
            self.state["stage_step"] = 0
            self.state["ema"] = {}
            self.log(f"-> stage {self.state['stage']} {STAGES[self.state['stage']][:2]}")
            self.save()

    def log(self, text: str) -> None:
        if self.rank:
            return
        line = f"{time.strftime('%H:%M:%S')} {text}"
        print(line, flush=True)
        with open(self.out / "train.log", "a") as file:
            file.write(line + "\n")

    def run(self) -> None:
        """Train until the decay has ended."""
        began, before = time.time(), self.state["seconds"]
        while self.state.get("left", 1.0) > 0:
            self.step()
            self.advance()
            self.state["seconds"] = before + time.time() - began
            step, minutes = self.state["step"], self.state["seconds"] / 60
            self.decay()
            if step % 50 == 0:
                ema = " ".join(f"{k}={mean:.3f}" for k, (mean, _) in self.state["ema"].items())
                speed = self.state["tokens"] / self.state["seconds"]
                self.log(
                    f"{minutes:.1f} min step {step} stage {self.state['stage']} loss {self.state['loss']} "
                    f"{ema} "
                    f"lr x{self.rate():.2f} {self.state['tokens'] / 1e6:.2f} M tokens {speed:.0f}/s"
                )
            if step % 100 == 0:
                self.save()
        self.save()


def parser() -> argparse.ArgumentParser:
    """The command line; the defaults are what the shipped model's last stage used."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    add = options.add_argument
    add("--out", default="runs/lm", help="folder of checkpoint, optimizer state and log")
    add("--resume", action="store_true", help="continue from the checkpoint in --out")
    add("--evaluate", metavar="DIR", help="print the table of the model in DIR and do nothing else")
    add("--samples", type=int, default=200, help="samples per cell of --evaluate")
    add("--device", default="cpu")
    add("--workers", type=int, default=2, help="processes that share a batch, one CPU thread each")
    add("--seed", type=int, default=0)
    add("--tokens", type=int, default=4096, help="tokens per step, all workers together")
    add("--lr", type=float, default=1e-3, help="AdamW: embeddings and norms, or all weights with --no-muon")
    add("--muon", action=argparse.BooleanOptionalAction, default=True, help="Muon for the weight matrices")
    add("--muon-lr", type=float, default=2e-3)
    add("--bf16", action=argparse.BooleanOptionalAction, default=True)
    add("--prose", type=float, default=0.04, help="share of prose steps")
    add("--induction", type=float, default=0.02, help="share of induction steps after their stages")
    add("--relation", type=float, default=0.02, help="share of relation steps after their stages")
    add("--dense", type=float, default=0.3, help="share of chats that are mostly needles")
    add("--drill", type=float, default=0.3, help="share of chats of lists or chains alone")
    add("--list-sizes", type=int, nargs="+", default=[3], help="values per key in lists")
    add("--shorter", type=float, default=0.85, help="share of task steps at any length so far")
    add("--stage-steps", type=int, default=900, help="move on to the next length after this many steps")
    add("--decay-after", type=float, default=61.0, help="minutes of training before the decay")
    add("--decay-steps", type=int, default=5000)
    add("--decay-minutes", type=float, help="end the decay by the clock, in place of steps")
    return options


def main() -> None:
    """Start the workers, or evaluate."""
    args = parser().parse_args()
    if args.evaluate:
        evaluate.report(Path(args.evaluate), args.samples, device=args.device)
        return
    Path(args.out).mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as meeting:
        torch.multiprocessing.spawn(work, (args, f"file://{meeting}/store"), nprocs=args.workers)


def work(rank: int, args: argparse.Namespace, meeting: str) -> None:
    """One of the processes that share every batch; their gradients are averaged."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=args.workers)
    trainer = Trainer(args)
    if args.resume:
        trainer.load()
    trainer.run()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
