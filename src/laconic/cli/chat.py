"""`laconic chat`: a conversation on a compressed cache, in the terminal or from a pipe."""

from __future__ import annotations

import json
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from laconic.cli import common
from laconic.cli.options import Device, Dtype, Keep, Options, Trust
from laconic.measure.units import seconds, size

if TYPE_CHECKING:
    from laconic.engine.chat import Chat
    from laconic.engine.request import Answer

HELP = "/stats: what is stored   /reset: begin anew   /quit or Ctrl-D: end   Ctrl-C: stop the answer"
PROMPT = "> "


def chat(
    model: Annotated[
        str, typer.Option("--model", "-m", help="smollm2, a folder, or a Hugging Face id; testbed/lm does not converse.")
    ] = "smollm2",
    method: Annotated[list[str] | None, typer.Option("--method", help="As for `laconic run`; repeat to combine.")] = None,
    keep: Keep = None,
    tokens: Annotated[int | None, typer.Option("--tokens", help="Entries kept per layer and head instead.")] = None,
    nbytes: Annotated[int | None, typer.Option("--bytes", help="Bytes of keys and values instead.")] = None,
    context: Annotated[
        str | None,
        typer.Option("--context", help="UTF-8 text file that is read and compressed before the first question is known."),
    ] = None,
    compress_turns: Annotated[
        bool,
        typer.Option(
            "--compress-turns",
            help="Compress questions and answers, too, again with every turn; always so without --context.",
        ),
    ] = False,
    system: Annotated[str | None, typer.Option("--system", help="System message.")] = None,
    max_new_tokens: Annotated[int, typer.Option("--max-new-tokens", min=1, help="Longest answer.")] = 512,
    prefill_chunk_size: Annotated[
        int | None, typer.Option("--prefill-chunk-size", min=1, help="Read the context in pieces of this many tokens.")
    ] = None,
    dtype: Dtype = "auto",
    device: Device = None,
    seed: Annotated[int, typer.Option("--seed", help="For sampling.")] = 0,
    sample: Annotated[bool, typer.Option("--sample", help="Sample the answers; default: greedy.")] = False,
    temperature: Annotated[float | None, typer.Option("--temperature", help="Of sampling (1.0); implies --sample.")] = None,
    trust_remote_code: Trust = False,
    as_json: Annotated[bool, typer.Option("--json", help="One line of JSON per answer on stdout.")] = False,
) -> None:
    """Talk with a model whose memory is compressed; /help lists what else can be typed.

    Example: laconic chat --method NAME --keep 0.25 --context report.txt
    """
    options = Options(
        model=model, method=method, keep=keep, tokens=tokens, nbytes=nbytes, context=context, system=system,
        max_new_tokens=max_new_tokens, prefill_chunk_size=prefill_chunk_size, dtype=dtype, device=device, seed=seed,
        sample=sample, temperature=temperature, trust_remote_code=trust_remote_code,
    )  # fmt: skip
    if context == "-":
        raise common.InputError("--context -: stdin holds the questions; give the context as a file.")
    if method is None and compress_turns:
        raise common.InputError("--compress-turns needs a --method; `laconic methods` lists them.")
    text = "" if context is None else options.text()
    with common.spinner("importing torch and transformers"):
        from laconic.cli.question import engine_and_methods, request_of
        from laconic.engine.chat import Chat
    engine, methods = engine_and_methods(options, "later" if text and not compress_turns else "in view")
    request = replace(request_of(options), context=text, system=system, methods=methods)
    with Chat(engine, request, compress_turns) as talk:
        _talk(talk, options, as_json)
    for note in talk.notes:
        _warn(note)


def _talk(chat: Chat, options: Options, as_json: bool) -> None:
    """Answer line after line until there is none."""
    typed = sys.stdin.isatty()
    if typed and not as_json:
        common.out().print(HELP, style="dim", markup=False)
    for line in _lines(typed):
        if line == "/quit":
            return
        if line in ("/stats", "/reset", "/help"):
            _command(line, chat, options, as_json)
        elif line.startswith("/") and " " not in line:
            common.err().print(f"{line} is no command. {HELP}", style="yellow", markup=False)
        elif line:
            _answer(line, chat, options, as_json, typed)


def _lines(typed: bool) -> Iterator[str]:
    """What the user types, or the lines of a pipe."""
    if not typed:
        yield from map(str.strip, sys.stdin)
        return
    with suppress(ImportError):
        import readline  # noqa: F401  input() then has line editing and a history
    while True:
        try:
            yield input(PROMPT).strip()
        except EOFError:
            common.out().print()
            return
        except KeyboardInterrupt:
            common.out().print(f"\n{HELP}", style="dim", markup=False)


def _command(line: str, chat: Chat, options: Options, as_json: bool) -> None:
    console = common.err() if as_json else common.out()
    if line == "/reset":
        chat.reset()
        for note in chat.notes:
            _warn(note)
        console.print("forgotten; the context is read again with the next question" if chat.request.context else "forgotten")
    elif line == "/help":
        console.print(HELP, markup=False)
    else:
        for name, value in stats(chat, options).items():
            console.print(f"{name:18} {value}", markup=False, soft_wrap=True)


def _answer(line: str, chat: Chat, options: Options, as_json: bool, typed: bool) -> None:
    """Ask, and show the answer as it comes; where it is typed, an error leaves the conversation open."""
    from laconic.cli.reading import reading
    from laconic.errors import LaconicError

    live = common.out().is_terminal and not as_json
    size = len(chat.engine.tokenizer.encode(line if chat.answers else chat.request.context + line))
    try:
        with _stops(chat), reading(chat.engine.model, size) as done_reading:

            def show(text: str) -> None:
                done_reading()
                common.out().print(common.clean(text), end="", markup=False, soft_wrap=True)
                sys.stdout.flush()

            answer = chat.ask(line, show if live else None)
    except LaconicError as error:
        if not typed:
            raise
        common.complain(error)
        return
    if as_json:
        sys.stdout.write(json.dumps(record(line, answer), ensure_ascii=False) + "\n")
    elif not live:
        common.out().print(common.clean(answer.text), markup=False, soft_wrap=True)
    else:
        common.out().print(
            {"stop": " [stopped]", "length": " [cut: --max-new-tokens]"}.get(answer.finish, ""), style="dim", markup=False
        )
    sys.stdout.flush()
    limit = getattr(chat.engine.model.config.get_text_config(), "max_position_embeddings", None)
    seen = answer.final.tokens_in + answer.final.tokens_out
    if limit and seen + options.max_new_tokens > limit:
        _warn(f"the conversation has {seen:,.0f} tokens, and the model {limit:,} positions; /reset begins anew.")


@contextmanager
def _stops(chat: Chat) -> Iterator[None]:
    """Ctrl-C ends the answer after its next token; a second one ends the program."""
    if threading.current_thread() is not threading.main_thread():  # signals belong to the main thread
        yield
        return

    def stop(*_: Any) -> None:
        signal.signal(signal.SIGINT, before)
        chat.stop()

    before = signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def stats(chat: Chat, options: Options) -> dict[str, str]:
    """What `/stats` shows."""
    found = {
        "model": common.clean(options.model_name),
        "method": "; ".join(map(str, chat.request.methods or ())) or "none: everything is stored",
    }
    figures, answers = chat.stats, chat.answers
    if figures is None or not answers:
        return found | {"answers": "none yet"}
    last, each = answers[-1], answers[-1].seconds_per_token
    mean = sum(figures.entries) / len(figures.entries)
    return found | {
        "answers": f"{len(answers)}",
        "tokens": f"{figures.tokens_in + figures.tokens_out:,.0f} seen, {mean:,.0f} stored (mean over layers and heads)",
        "KV bytes": f"{size(figures.kv_bytes)} of {size(figures.kv_bytes_full)} "
        f"({figures.kv_bytes / figures.kv_bytes_full:.1%})",
        "last answer": f"{seconds(last.first_seconds)} to the first token"
        + ("" if each is None else f", {seconds(each)} per token after it"),
    }


def record(question: str, answer: Answer) -> dict[str, Any]:
    """The JSON of one answer; the keys are stable."""
    return {
        "question": question,
        "answer": answer.text,
        "finish": answer.finish,
        "tokens_out": len(answer.ids),
        "tokens_seen": answer.final.tokens_in + answer.final.tokens_out,
        "kv_bytes": answer.final.kv_bytes,
        "kv_bytes_full": answer.final.kv_bytes_full,
        "first_seconds": answer.first_seconds,
        "seconds_per_token": answer.seconds_per_token,
    }


def _warn(text: str) -> None:
    common.err().print(f"warning: {text}", style="yellow", markup=False, soft_wrap=True)
