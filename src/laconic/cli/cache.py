"""Saved contexts: `laconic run --cache FILE` makes or asks one, `laconic cache info FILE` describes it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from laconic.cli import common
from laconic.cli import options as o

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from laconic.cache.saved import SavedContext
    from laconic.cli.options import Request
    from laconic.prompts.text import Prompt

app = typer.Typer(help="Look at saved contexts.", no_args_is_help=True)


@app.command()
def info(
    file: Annotated[str, typer.Argument(help="A file that `laconic run --cache` wrote.")], as_json: o.Json = False
) -> None:
    """Say what a saved context holds: model, methods, tokens, bytes. Reads the header only."""
    from laconic.cache.saved import header
    from laconic.cli.panel import size

    facts = header(file)
    facts.pop("sha256")
    if as_json:
        common.emit(facts)
        return
    methods = [f"{m['name']}({', '.join(f'{k}={v}' for k, v in m['arguments'].items())})" for m in facts["methods"]]
    rows = {
        "model": f"{facts['model']} ({facts['dtype']}, weights {facts['fingerprint']})",
        "tokenizer": facts["tokenizer"] or "not recorded",
        "methods": "; ".join(methods) or "none: everything is stored",
        "tokens": f"{facts['tokens']:,} seen in {len(facts['real'])} sequence(s)",
        "KV bytes": f"{size(facts['kv_bytes'])} of {size(sum(facts['real']) * facts['entry_bytes'])}",
        "parts": "; ".join(sorted({" + ".join(layer.get("parts", ["sliding window"])) for layer in facts["layers"]})),
        "file": size(Path(file).stat().st_size),
        "written by": ", ".join(f"{name} {number}" for name, number in facts["versions"].items()),
    }
    table = Table(box=None, show_header=False, pad_edge=False)
    for name, value in rows.items():
        table.add_row(f"[bold]{name}[/]", escape(value))
    common.out().print(table)


def opened(request: Request, path: Path) -> tuple[PreTrainedModel, Any, Prompt, SavedContext]:
    """Model, tokenizer, the prompt with the request's question, and the saved context; made first if there is no such file.

    Raises:
        InputError: nothing to ask, or the options do not fit the file.
    """
    from laconic.cache.saved import load

    if not request.question.strip():
        raise common.InputError("--cache needs a --question to ask the saved context.")
    request.query_agnostic = True
    exists = path.exists()
    if exists and request.method:
        raise common.InputError(f"{path} exists and says itself how it was compressed; drop --method, or give another file.")
    if not exists and request.context is None:
        raise common.InputError(f"{path} does not exist yet; give the --context to compress into it.")
    model, tokenizer = request.load()
    if not exists:
        _write(request, path, model, tokenizer)
    saved = load(path, model, tokenizer)
    if exists and request.context is not None and request.text() != saved.text:
        raise common.InputError(f"{path} holds another text than --context {request.context}; drop one of them.")
    request.system = saved.system
    prompt = request.prompt(tokenizer, saved.text)
    assert saved.input_ids is not None
    if prompt.context != saved.input_ids[0].tolist():
        raise common.InputError(f"{path}: this chat template puts other tokens before the context than when it was saved.")
    request.check_length(model, prompt)
    return model, tokenizer, prompt, saved


def _write(request: Request, path: Path, model: PreTrainedModel, tokenizer: Any) -> None:
    import torch

    from laconic.cli.engine import read
    from laconic.session import Session

    text = request.text()
    prompt = request.prompt(tokenizer, text)
    session = Session(model, request.methods(), request.protected(), tokenizer)
    with common.spinner(f"compressing the context into {path}"), session:
        read(model, session, prompt.context, request.prefill_chunk_size)
        ids = torch.tensor([prompt.context])
        session.save_cache(path, input_ids=ids, tokenizer=tokenizer, text=text, system=request.system)
