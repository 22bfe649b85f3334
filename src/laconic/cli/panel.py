"""The panel under an answer: what the compressed run cost, beside the uncompressed one when it ran."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Group
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from laconic.cli.common import clean
from laconic.cli.run import compared, per_token

if TYPE_CHECKING:
    from laconic.cli.engine import Result, Run
    from laconic.cli.options import Request
    from laconic.media import Frame
    from laconic.method import Method
    from laconic.prompts.text import Prompt

BARS = "▁▂▃▄▅▆▇█"


def panel(
    request: Request,
    model: Any,
    prompt: Prompt,
    methods: Sequence[Method],
    done: Run,
    full: Result | None,
    images: Sequence[Frame] = (),
) -> Panel:
    """Everything worth knowing about a run, in one frame."""
    mine = done.result
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("")
    table.add_column("compressed", justify="right")
    if full is not None:
        table.add_column("uncompressed", justify="right")
        table.add_column("ratio", justify="right")

    def row(name: str, value: Callable[[Result], float | None], show: Callable[[float], str]) -> None:
        a, b = value(mine), None if full is None else value(full)
        cells = [_shown(a, show)]
        if full is not None:
            cells += [_shown(b, show), f"{a / b:.3f}" if a is not None and b else "-"]
        table.add_row(name, *cells)

    row("KV bytes after the prompt", lambda r: r.kv_bytes_prompt, size)
    row("KV bytes at the end", lambda r: r.kv_bytes_end, size)
    row(f"peak memory ({mine.memory_kind})", lambda r: r.peak_memory, size)
    if done.seen is not None:
        row("vision encoder", lambda r: r.encoder_seconds, seconds)
    row("prefill", lambda r: r.prefill_seconds, seconds)
    row("  of it compressing", lambda r: r.compress_seconds or None, seconds)
    row("decode per token", per_token, seconds)
    row("prefill FLOPs", lambda r: r.prefill_flops, flops)
    row("decode FLOPs", lambda r: r.decode_flops, flops)
    row("tokens answered", lambda r: len(r.ids), lambda x: f"{x:.0f}")

    parts: list[Any] = [_head(request, prompt, methods, done, images), Text(), table]
    if full is not None:
        parts += [Text(), *_agreement(request, mine, full)]
    parts += [Text(f"warning: {w}", style="yellow") for w in request.warnings]
    return Panel(Group(*parts), title="laconic", title_align="left", border_style="dim", expand=False)


def _head(request: Request, prompt: Prompt, methods: Sequence[Method], done: Run, images: Sequence[Frame]) -> Table:
    shape, layers = done.session.shape, done.final.layers
    mode = "query-agnostic: the context was compressed first" if request.query_agnostic else "query-aware"
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_row("model", clean(request.model))
    grid.add_row("method", "; ".join(str(m) for m in methods) or "none: everything is stored")
    grid.add_row("mode", mode)
    grid.add_row(
        "prompt", "chat template applied" if prompt.templated else "plain text: this tokenizer has no chat template"
    )
    if images:
        grid.add_row("images", shown(images))
    grid.add_row("tokens in", f"{prompt.tokens:,} (context {len(prompt.context):,}, question {len(prompt.question):,})")
    if methods:
        grid.add_row("kept", kept(request, methods, done))
    grid.add_row("entries per layer", entries(done.result.entries, prompt.tokens))
    ran = sorted(set(done.final.stream.values()))
    if done.seen is not None:
        grid.add_row("tokens by layer", by_layer(done.final.stream))
        grid.add_row("visual tokens", f"{len(done.seen.tokens):,} in; {by_layer(done.seen.by_layer(done.session))}")
    elif len(ran) > 1:
        grid.add_row("stream", f"{ran[-1]:,} tokens in the first layers, {ran[0]:,} in the last")
    alone = [i for i in range(shape.layers) if i not in layers]
    if alone:
        grid.add_row("left alone", f"layers {', '.join(map(str, alone))}: their attention is bounded already")
    return grid


def kept(request: Request, methods: Sequence[Method], done: Run) -> str:
    """What was asked for and achieved, and of what: what shortens the stream is held against the visual tokens."""
    from laconic.stream.contract import TokenMethod

    budget = done.budget
    what = "of the context" if request.query_agnostic else "of the prompt"
    achieved = f"achieved {budget.achieved:.2%} {what} ({budget.tokens_in:,.0f} tokens)"
    if done.seen is None:
        return f"asked {budget.asked:.2%}, {achieved}"
    lines = []
    cutters = [m for m in methods if isinstance(m, TokenMethod)]
    if cutters:
        ran = done.seen.by_layer(done.session)
        share = sum(ran.values()) / (len(ran) * len(done.seen.tokens))
        asked = ", ".join("own parameters" if m.budget_from_parameters else str(m.budget) for m in cutters)
        lines.append(f"asked {asked}, achieved {share:.2%} of the visual tokens, mean over layers")
    holder = done.session.meter.budgeted
    if holder is not None:
        own = holder.budget_from_parameters or (holder.in_bytes and holder.budget.neutral)
        whole = achieved.replace(" of", " of the bytes of", 1) if holder.in_bytes else achieved
        lines.append(f"asked {'own parameters' if own else f'{budget.asked:.2%}'}, {whole}")
    return "\n".join(lines)


def shown(images: Sequence[Frame]) -> str:
    """How many, and the first three: file, frame, size."""
    names = []
    for p in images[:3]:
        frame = f" frame {p.number} of {p.of}" if p.of > 1 else ""
        names.append(f"{clean(Path(p.source).name)}{frame} {p.image.width} x {p.image.height}")
    return f"{len(images)}: {', '.join(names)}{', ...' if len(images) > 3 else ''}"


def by_layer(counts: Mapping[int, float]) -> str:
    """Counts, those of neighbouring layers that agree in one piece."""
    runs: list[tuple[int, int, float]] = []
    for layer, count in sorted(counts.items()):
        if runs and runs[-1][1] == layer - 1 and runs[-1][2] == count:
            runs[-1] = runs[-1][0], layer, count
        else:
            runs.append((layer, layer, count))
    return ", ".join(f"{n:,.0f} in layer{f's {a}-{b}' if b > a else f' {a}'}" for a, b, n in runs)


def entries(rows: Sequence[tuple[int, float, int]], tokens: int) -> str:
    """Fewest, mean and most entries of any head, and one bar per layer (full height: every token)."""
    low, high = min(r[0] for r in rows), max(r[2] for r in rows)
    mean = sum(r[1] for r in rows) / len(rows)
    bars = "".join(BARS[min(7, max(0, round(r[1] / max(tokens, 1) * 7)))] for r in rows)
    return f"min {low:,}, mean {mean:,.1f}, max {high:,}  {bars}"


def _agreement(request: Request, mine: Result, full: Result) -> list[Text]:
    facts = compared(mine, full)
    if facts["agree"]:
        return [Text("the answers agree", style="green")]
    where = Text(f"the answers differ from token {facts['first_difference']} on", style="yellow")
    return [where, Text("uncompressed: ", style="bold") + Text(clean(request.answer_prefix + full.text), style="not bold")]


def _shown(value: float | None, show: Callable[[float], str]) -> str:
    return "-" if value is None else show(value)


def size(n: float) -> str:
    """Bytes in binary units."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(n) < 1024:
            return f"{n:,.0f} {unit}" if unit == "B" else f"{n:,.1f} {unit}"
        n /= 1024
    return f"{n:,.1f} TiB"


def seconds(s: float) -> str:
    """Milliseconds, or seconds from ten on."""
    return f"{s:,.2f} s" if s >= 10 else f"{s * 1000:,.1f} ms"


def flops(n: float) -> str:
    """FLOPs with an SI prefix."""
    for unit in ("", "k", "M", "G", "T", "P"):
        if abs(n) < 1000:
            return f"{n:,.2f} {unit}FLOP".replace(".00 FLOP", " FLOP")
        n /= 1000
    return f"{n:,.1f} EFLOP"
