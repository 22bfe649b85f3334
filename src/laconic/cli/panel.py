"""The panel under an answer: what the compressed run cost, beside the uncompressed one when it ran."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Group
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from laconic.cache.replay import ReplayMethod
from laconic.cli.answering import Run
from laconic.cli.common import clean
from laconic.cli.compress import figures as shortened
from laconic.cli.question import Question
from laconic.cli.record import first_difference
from laconic.measure.units import flops, seconds, size
from laconic.media import Frame
from laconic.method import CATALOGUE, Method
from laconic.shortening.contract import PromptMethod

BARS = "▁▂▃▄▅▆▇█"


def panel(question: Question, run: Run, stock: Run | None) -> Panel:
    """Everything worth knowing about a run, in one frame."""
    parts: list[Any] = [_head(question, run), Text(), _figures(question, run, stock)]
    if stock is not None or question.methods:
        parts.append(Text(timed(run, stock is not None), style="dim"))
    if stock is not None:
        parts += [Text(), *_agreement(question, run, stock)]
    parts += [Text(f"warning: {w}", style="yellow") for w in question.options.warnings]
    return Panel(Group(*parts), title="laconic", title_align="left", border_style="dim", expand=False)


def _figures(question: Question, run: Run, stock: Run | None) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("")
    table.add_column("compressed", justify="right")
    if stock is not None:
        table.add_column("uncompressed", justify="right")
        table.add_column("ratio", justify="right")

    def row(name: str, value: Callable[[Run], float | None], show: Callable[[float], str]) -> None:
        a, b = value(run), None if stock is None else value(stock)
        if a is None and b is None:
            return
        cells = [_shown(a, show)]
        if stock is not None:
            cells += [_shown(b, show), f"{a / b:.3f}" if a is not None and b else "-"]
        table.add_row(name, *cells)

    row("KV bytes after the prompt", lambda r: r.answer.prompt.kv_bytes, size)
    row("KV bytes at the end", lambda r: r.final.kv_bytes, size)
    row(f"peak memory ({run.answer.memory_kind.replace('_', ' ')})", lambda r: r.answer.peak_memory, size)
    if run.visual is not None:
        row(f"{'sound' if question.sounds else 'vision'} encoder", lambda r: r.final.encoder_seconds, seconds)
    row("prefill", lambda r: r.prefill_seconds, seconds)
    if question.methods:
        row("  of it the method's own work", lambda r: r.answer.prompt.compress_seconds or None, seconds)
    row("decode per token", lambda r: r.decode_seconds_per_token, seconds)
    row("prefill FLOPs", lambda r: r.final.prompt_flops, flops)
    row("  of it the method's own work", lambda r: r.final.method_flops or None, flops)
    row("  more than uncompressed", lambda r: more_flops(r) or None, flops)
    row("decode FLOPs per token", decode_flops_per_token, flops)
    runs = [run] if stock is None else [run, stock]
    blank = [""] * (len(runs) - 1)
    table.add_row("tokens answered", *map(length, runs), *blank)
    if any(one.thinking is not None for one in runs):
        table.add_row("  of them thinking", *map(thought, runs), *blank)
        table.add_row("  after the mark", *map(after_mark, runs), *blank)
        table.add_row("seconds to the end", *(seconds(one.answer.first_seconds + one.answer.later_seconds) for one in runs))
    return table


def thought(run: Run) -> str:
    """Steps of thinking: those without words, and those written."""
    found = run.thinking
    if found is None:
        return "-"
    return f"{found.latent:,} latent, {found.written:,} written" if found.latent else f"{found.written:,} written"


def after_mark(run: Run) -> str:
    """Tokens of the answer itself."""
    if run.thinking is None:
        return "-"
    return f"{run.thinking.answer:,}" if run.thinking.closed else "none: the thinking did not end"


def more_flops(run: Run) -> int:
    """What a prompt takes with a method on top of what it takes uncompressed; 0 where it takes less."""
    total = run.final.prompt_flops
    assert total is not None
    return max(0, total - run.final.prefill_flops_full)


def decode_flops_per_token(run: Run) -> float | None:
    """Answers differ in length, so their totals say nothing beside each other."""
    total, tokens = run.final.answer_flops, run.final.tokens_out
    assert total is not None
    return total / tokens if tokens else None


def length(run: Run) -> str:
    """Tokens of the answer, and whether the limit has cut it."""
    return f"{len(run.answer.ids):,}{', cut at the limit' if run.answer.finish == 'length' else ''}"


def in_words(question: Question) -> str:
    """When the question came, and whether the methods looked at it."""
    if question.later:
        return "the context was compressed before the question was known"
    memory = question.request.memory is not None
    if memory or any(CATALOGUE[method.name].site == "memory" for method in question.methods):
        return "the context was compressed by itself; the question was read after what stands for it"
    if not question.methods:
        return "context and question were read together"
    looks = any(CATALOGUE[method.name].query_aware for method in question.methods)
    return (
        f"context and question were compressed together; the method {'looks' if looks else 'does not look'} at the question"
    )


def timed(run: Run, beside: bool) -> str:
    """How the times were measured, with the uncompressed model beside it or alone."""
    if run.timed > 1:
        return f"times: the fastest of {run.timed} runs, compressed and uncompressed in turn"
    runs = "one run each, the compressed one first" if beside else "of one run"
    return f"times: {runs}; a part of them went into counting the FLOPs of the method's own work"


def _head(question: Question, run: Run) -> Table:
    prompt, final = question.prompt, run.final
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_row("model", clean(question.options.model_name))
    memory = question.request.memory
    methods = [str(method) for method in question.methods] + ([] if memory is None else [f"{memory.method}, from a file"])
    grid.add_row("method", "; ".join(methods) or "none: everything is stored")
    grid.add_row("question", in_words(question))
    grid.add_row(
        "prompt", "chat template applied" if prompt.templated else "plain text: this tokenizer has no chat template"
    )
    if question.origin:
        grid.add_row("context", f"{clean(question.origin)}; prefill below is that of the question")
    if question.frames:
        grid.add_row("frames" if question.options.video and not question.options.image else "images", shown(question.frames))
    if question.sounds:
        grid.add_row("sound", heard(question))
    for method in question.methods:
        if isinstance(method, PromptMethod) and method.done is not None:
            grid.add_row("text", f"{shortened(method.done)} before the model read it")
    grid.add_row("tokens in", f"{prompt.tokens:,} (context {len(prompt.context):,}, question {len(prompt.question):,})")
    if any(isinstance(method, ReplayMethod) for method in question.methods):
        grid.add_row("read", "twice: the model repeats what it has read; prefill, below, has both")
    if methods:
        grid.add_row("kept", kept(question, run))
    grid.add_row("entries per layer", entries(run.entries, prompt.tokens))
    ran = sorted(set(final.stream.values()))
    if run.visual is not None:
        grid.add_row("tokens by layer", by_layer(final.stream))
        grid.add_row(
            f"{media_name(question)} tokens", f"{len(run.visual.numbers):,} in; {by_layer(run.visual.by_layer(run.session))}"
        )
    elif len(ran) > 1:
        grid.add_row("stream", f"{ran[-1]:,} tokens in the first layers, {ran[0]:,} in the last")
    if run.session.left_alone:
        layers = ", ".join(map(str, sorted(run.session.left_alone)))
        grid.add_row("left alone", f"layers {layers}: their attention is bounded already")
    return grid


def kept(question: Question, run: Run) -> str:
    """What was asked for and achieved, and of what: what shortens the stream is compared with the visual tokens."""
    budget = run.answer.compressed
    text = bool(question.methods) and all(isinstance(method, PromptMethod) for method in question.methods)
    what = "of the context" if question.later or text else "of the prompt"
    achieved = f"achieved {budget.achieved:.2%} {what} ({budget.tokens_in:,.0f} tokens)"
    lines = []
    memory = question.request.memory
    for maker in (m for m in question.methods if CATALOGUE[m.name].site == "memory"):
        lines.append(f"asked {asked(maker)} of the context, {achieved}")
    if memory is not None:
        lines.append(f"asked {100 * memory.keep:.6g}% of the context, {achieved}")
    cutters = [m for m in question.methods if m.in_visual_tokens]
    if cutters and run.visual is not None:
        ran = run.visual.by_layer(run.session)
        share = sum(ran.values()) / (len(ran) * len(run.visual.numbers))
        what_ran = f"{share:.2%} of the {media_name(question)} tokens"
        lines.append(f"asked {', '.join(map(asked, cutters))}, achieved {what_ran}, mean over layers")
    holder = run.session.meter.budgeted
    if holder is not None:
        whole = achieved.replace(" of", " of the bytes of", 1) if holder.in_bytes else achieved
        lines.append(f"asked {asked(holder)}, {whole}")
    return "\n".join(lines) or f"asked {budget.asked:.2%}, {achieved}"


def asked(method: Method) -> str:
    """The budget of a method as it was given, not what it comes to in whole entries."""
    budget = method.budget
    if method.budget_from_parameters or (method.in_bytes and budget.neutral):
        return "own parameters"
    if budget.keep is not None:
        return f"{100 * budget.keep:.6g}%"
    return f"{budget.tokens:,} entries per head" if budget.tokens is not None else size(budget.bytes or 0)


def shown(images: Sequence[Frame]) -> str:
    """How many, and the first three: file, frame, size."""
    names = []
    for frame in images[:3]:
        number = f" frame {frame.number} of {frame.of}" if frame.of > 1 else ""
        names.append(f"{clean(Path(frame.source).name)}{number} {frame.image.width} x {frame.image.height}")
    return f"{len(images)}: {', '.join(names)}{', ...' if len(images) > 3 else ''}"


def heard(question: Question) -> str:
    """Each file with its seconds."""
    files = zip(question.options.audio or (), question.sounds, strict=True)
    return ", ".join(f"{clean(Path(path).name)} {sound.seconds:.2f} s" for path, sound in files)


def media_name(question: Question) -> str:
    """What the tokens that are no text stand for."""
    return "audio" if question.sounds else "visual"


def by_layer(counts: Mapping[int, float]) -> str:
    """Counts, with neighbouring layers that agree grouped together."""
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


def _agreement(question: Question, run: Run, stock: Run) -> list[Text]:
    place = first_difference(run.answer.ids, stock.answer.ids)
    if place is None:
        return [Text("the answers agree", style="green")]
    where = Text(f"the answers differ from token {place} on", style="yellow")
    full = clean(question.options.answer_prefix + stock.answer.text)
    return [where, Text("uncompressed: ", style="bold") + Text(full, style="not bold")]


def _shown(value: float | None, show: Callable[[float], str]) -> str:
    return "-" if value is None else show(value)
