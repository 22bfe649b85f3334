"""`laconic run --audio` with a speech model: the transcript, and how many encoder tokens its decoder looked at."""

from __future__ import annotations

from dataclasses import asdict

from laconic.cli import common
from laconic.cli.options import Options
from laconic.cli.question import loaded, sounds_of
from laconic.loading import writes_down
from laconic.specs import create_methods
from laconic.speech.transcribe import Transcript, transcribe


def is_for(options: Options) -> bool:
    """Whether the named model writes down speech; one that cannot be found is left to the loading, whose message says so."""
    try:
        return writes_down(options.model_name, trust_remote_code=options.trust_remote_code)
    except (OSError, ValueError, ImportError):
        return False


def without_text(options: Options) -> None:
    """Refuse what a model that only writes down what it hears has no place for.

    Raises:
        InputError: text beside the sound.
    """
    if options.question or options.context or options.later or options.protect:
        raise common.InputError(
            f"--model {options.model_name} writes down what it hears and takes no text; drop --question, --context, --later "
            "and --protect, or give a model that answers, such as a Qwen2-Audio model."
        )


def write_down(options: Options, compare: bool, as_json: bool) -> None:
    """Print the transcript of every sound, and its figures; with `compare` whether the uncompressed model writes the same.

    Raises:
        InputError: text beside the sound, or no such model.
        MediaError: a sound that cannot be read.
    """
    without_text(options)
    sounds = sounds_of(options)
    methods = create_methods(options.method or [], keep=options.keep, tokens=options.tokens, bytes=options.nbytes)
    model, processor = loaded(options)
    records = []
    for path, sound in zip(options.audio or (), sounds, strict=True):
        with common.spinner(f"listening to {path}"):
            done = transcribe(model, processor, sound, *methods)
            stock = transcribe(model, processor, sound) if compare else None
        records.append({"audio": path, "seconds": sound.seconds, **_record(done)})
        if stock is not None:
            records[-1]["uncompressed"] = _record(stock)
        if not as_json:
            _print(path, sound.seconds, done, stock)
    if as_json:
        names = [str(method) for method in methods]
        common.emit({"model": options.model_name, "methods": names, "sounds": records, "warnings": options.warnings})
        return
    for warning in options.warnings:
        common.err().print(warning, markup=False, soft_wrap=True, style="yellow")


def _record(done: Transcript) -> dict[str, object]:
    return {"text": done.text, "figures": asdict(done.stats)}


def _print(path: str, seconds: float, done: Transcript, stock: Transcript | None) -> None:
    console, stats = common.out(), done.stats
    console.print(common.clean(done.text), markup=False, soft_wrap=True)
    lines = [
        f"{path}: {seconds:.1f} s, {stats.windows} window{'s' * (stats.windows != 1)}",
        f"encoder tokens   {stats.encoder_tokens:,}, {stats.sound_tokens:,} of them sound",
        f"cross-attention  {stats.kept_tokens:,} tokens, {stats.cross_bytes:,} of {stats.cross_bytes_full:,} bytes "
        f"({100 * stats.cross_bytes / stats.cross_bytes_full:.1f} %)",
    ]
    if stock is not None:
        lines.append("uncompressed     " + ("the same text" if stock.text == done.text else common.clean(stock.text)))
    console.print("\n".join(lines), markup=False, soft_wrap=True, style="dim")
