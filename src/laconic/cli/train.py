"""`laconic train`: the learned parts that some methods need, for one model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from laconic.cli import common


def train(
    method: Annotated[str, typer.Argument(help="What to train for: lococo, dyvte or explainability.")],
    model: Annotated[str, typer.Option(help="testbed/lm, testbed/vlm, a folder, or a Hugging Face id.")] = "testbed/lm",
    out: Annotated[Path, typer.Option(help="Folder for weights, checkpoint and log.")] = Path("train"),
    steps: Annotated[int | None, typer.Option(help="Optimiser steps; the learning rate falls to zero over them.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of the data and of the first weights.")] = None,
    settings: Annotated[list[str] | None, typer.Option("--set", help="Another setting, as name=value; repeat it.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the checkpoint in --out.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Only JSON on stdout.")] = False,
) -> None:
    """Train what a method needs on a frozen model; `--set` names a setting that does not exist to see them all.

    The last checkpoint is on disk every `save_every` steps; after Ctrl-C the same command with --resume goes on from there.
    """
    import laconic
    from laconic.fit.trainers import find

    trainer = find(method)
    given = {}
    for pair in settings or []:
        name, eq, text = pair.partition("=")
        if not eq or name in given:
            raise common.InputError(f"--set {pair}: give each setting once, as name=value.")
        given[name] = text
    for name, value in (("steps", steps), ("seed", seed)):
        if value is not None:
            given[name] = str(value)
    chosen = trainer.configure(given)
    common.quiet()
    with common.spinner(f"loading {model}"):
        network, tokenizer = laconic.load(model)

    def log(line: str) -> None:
        (common.err() if as_json else common.out()).print(line, soft_wrap=True)

    weights = trainer.run(network, tokenizer, chosen, out, resume, log)
    if as_json:
        common.emit({"method": method, "model": model, "weights": str(weights), "settings": vars(chosen)})
    else:
        common.out().print(f"wrote {weights}; use it as weights= of {method}", soft_wrap=True)
