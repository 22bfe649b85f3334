"""A bar on the terminal while a prompt is read: how much of it has run through the model's layers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from transformers import PreTrainedModel

from laconic.cli.common import err, told_late
from laconic.families import family_of


@contextmanager
def reading(model: PreTrainedModel, tokens: int, what: str = "") -> Iterator[Callable[[], None]]:
    """Show on stderr how far the model has read; where that is no terminal, that it reads, if it takes long.

    Args:
        tokens: of the prompt. Each counts once per decoder layer, so the bar moves while a prompt is read in one pass.
        what: opens the line, where it needs to say which run this is.

    Returns:
        a function that removes the bar, to be called before anything else is written to the terminal.
    """
    console = err()
    if not console.is_terminal:
        with told_late(f"{what}reading {tokens:,} tokens"):
            yield lambda: None
        return
    layers = family_of(model).stack(model).layers
    columns = TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn()
    bar = Progress(*columns, console=console, transient=True)
    task = bar.add_task(f"{what}reading {tokens:,} tokens", total=tokens * len(layers))  # type: ignore[arg-type]
    size, decoded = 0, 0

    def begins(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        nonlocal size, decoded
        size = (args[0] if args else kwargs["hidden_states"]).shape[1]
        if size == 1 and tokens > 1:
            decoded += 1
            bar.update(task, description=f"{what}token {decoded + 1} of the answer")

    def ran(*_: Any) -> None:
        bar.advance(task, size)

    with ExitStack() as undo:
        undo.callback(layers[0].register_forward_pre_hook(begins, with_kwargs=True).remove)  # type: ignore[index,union-attr]
        for layer in layers:  # type: ignore[union-attr]
            undo.callback(layer.register_forward_hook(ran).remove)
        bar.start()
        undo.callback(bar.stop)
        yield undo.close
