"""The options that `run` and `inspect` share: declared once, and checked before anything heavy is imported."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Annotated, Any, get_type_hints

import typer

from laconic.budget import Budget, share
from laconic.cli.common import InputError, err, quiet, read_text, spinner
from laconic.method import check_name

DTYPES = ("auto", "float32", "bfloat16", "float16")


def share_of(text: str | float) -> float:
    """A share on the command line, as the `parser` of an option; a message says how one is written."""
    try:
        return share(str(text))
    except ValueError:
        raise typer.BadParameter(f"{text!r} is no share; write 0.1 or 10%.") from None


_SIZES = {"": 1, "b": 1}
_SIZES |= {unit + "b": 1000**power for power, unit in enumerate("kmgt", 1)}
_SIZES |= {unit + "ib": 1024**power for power, unit in enumerate("kmgt", 1)}


def bytes_of(text: str) -> int:
    """A number of bytes as it is written on a command line: 2000000, 2GB, 1.5 GiB.

    Raises:
        typer.BadParameter: it is none.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmgt]i?b|b?)", text.strip().lower())
    if match is None:
        raise typer.BadParameter(f"{text!r} is no number of bytes; write 2000000, 2GB or 500MiB.")
    return round(float(match[1]) * _SIZES[match[2]])


TEXT_MODEL, IMAGE_MODEL, VIDEO_MODEL = "testbed/lm", "testbed/vlm", "testbed/video"
"""Models that are shipped, and taken when none is named."""
REAL_MODEL = "smollm2"
"""Taken for a user's own documents, about which the shipped one says nothing, where its package is installed."""
PICKED = "picked"
"""Stands for the methods that `laconic pick` found."""

Model = Annotated[str, typer.Option("--model", "-m", help="testbed/lm, testbed/vlm, a local folder, or a Hugging Face id.")]
Dtype = Annotated[str, typer.Option("--dtype", help=f"Of the weights: {', '.join(DTYPES)}.")]
Device = Annotated[str | None, typer.Option("--device", help="cpu, cuda, cuda:1 ...; default: a GPU when there is one.")]
Keep = Annotated[
    float | None, typer.Option("--keep", parser=share_of, metavar="SHARE", help="Share of the tokens kept: 0.1 or 10%.")
]
Json = Annotated[bool, typer.Option("--json", help="Only JSON on stdout.")]
Trust = Annotated[bool, typer.Option("--trust-remote-code", help="Run code that comes with the checkpoint.")]


def model_for(model: str | None, sees: bool, films: bool = False) -> str:
    """The model that was named, or the shipped one that reads such input: images, or a video alone."""
    return model or (VIDEO_MODEL if films else IMAGE_MODEL if sees else TEXT_MODEL)


@dataclass(kw_only=True)
class Options:
    """What was asked for on the command line.

    Attributes:
        warnings: what the user has to be told.

    Raises:
        InputError: options that do not go together.
    """

    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            help="smollm2, a local folder, or a Hugging Face id; default: testbed/lm, with images testbed/vlm, with a video "
            "testbed/video.",
        ),
    ] = None
    method: Annotated[
        list[str] | None,
        typer.Option(
            "--method",
            help="A name that `laconic methods` lists, or NAME:key=value,key=value; repeat to combine; none: nothing is "
            "compressed.",
        ),
    ] = None
    keep: Keep = None
    tokens: Annotated[int | None, typer.Option("--tokens", help="Entries per layer and head, instead of --keep.")] = None
    nbytes: Annotated[int | None, typer.Option("--bytes", help="Bytes of keys and values, instead of --keep.")] = None
    context: Annotated[str | None, typer.Option("--context", help="UTF-8 text file; - reads stdin.")] = None
    image: Annotated[
        list[str] | None, typer.Option("--image", help="JPEG, PNG, WebP or GIF, for a vision model; repeat to show several.")
    ] = None
    video: Annotated[str | None, typer.Option("--video", help="A video file, an animation, or a folder of frames.")] = None
    as_images: Annotated[
        bool, typer.Option("--as-images", help="Show the video's frames as images, also to a model that takes videos.")
    ] = False
    frames: Annotated[
        int | None, typer.Option("--frames", min=1, help="Frames of the video, evenly spread; default: 8.")
    ] = None
    audio: Annotated[
        list[str] | None,
        typer.Option("--audio", help="A sound file, for a model that hears; repeat to give several, before the text."),
    ] = None
    question: Annotated[str, typer.Option("--question", "-q", help="What to ask about the context.")] = ""
    answer_prefix: Annotated[
        str, typer.Option("--answer-prefix", help="Opens the answer; the model continues from there.")
    ] = ""
    system: Annotated[str | None, typer.Option("--system", help="System message.")] = None
    protect: Annotated[
        list[str] | None,
        typer.Option("--protect", help="Never removed: 'system', a token range '10:20', or text of the prompt. Repeatable."),
    ] = None
    max_new_tokens: Annotated[int, typer.Option("--max-new-tokens", min=1, help="Longest answer.")] = 64
    later: Annotated[bool, typer.Option("--later", help="Compress the context before the question is known.")] = False
    query_agnostic: Annotated[bool, typer.Option("--query-agnostic", hidden=True)] = False
    prefill_chunk_size: Annotated[
        int | None, typer.Option("--prefill-chunk-size", min=1, help="Read the prompt in pieces of this many tokens.")
    ] = None
    dtype: Dtype = "auto"
    device: Device = None
    seed: Annotated[int, typer.Option("--seed", help="For sampling.")] = 0
    sample: Annotated[bool, typer.Option("--sample", help="Sample the answer; default: greedy.")] = False
    temperature: Annotated[float | None, typer.Option("--temperature", help="Of sampling (1.0); implies --sample.")] = None
    trust_remote_code: Trust = False
    warnings: list[str] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        self._check_budget()
        for spec in self.method or ():
            if spec != PICKED:
                check_name(spec.partition(":")[0].strip())
        if self.dtype not in DTYPES:
            raise InputError(f"--dtype {self.dtype}: choose one of {', '.join(DTYPES)}.")
        if self.temperature is not None and not 0 < self.temperature < float("inf"):
            raise InputError(f"--temperature {self.temperature} must be above 0.")
        self.sample = self.sample or self.temperature is not None
        if self.query_agnostic:
            self.later = True
            self.warnings.append("--query-agnostic is now called --later; the old name goes with laconic 0.3.")
        if self.audio and self.sees:
            raise InputError("--audio goes neither with --image nor with --video yet; give one of them.")
        if self.audio and self.prefill_chunk_size:
            raise InputError("--prefill-chunk-size does not go with --audio; drop one of them.")
        if self.later and not (self.context or self.sees or self.audio):
            raise InputError("--later compresses a context before the question; give --context.")
        if self.frames is not None and self.video is None:
            raise InputError(f"--frames {self.frames} are those of a --video; give one.")
        if self.as_images and self.video is None:
            raise InputError("--as-images is about the frames of a --video; give one.")
        if self.sees and self.prefill_chunk_size:
            raise InputError(
                "--prefill-chunk-size does not go with images: transformers loses them when it reads a prompt in pieces."
            )

    def _check_budget(self) -> None:
        given = {"--keep": self.keep, "--tokens": self.tokens, "--bytes": self.nbytes}
        budget = [name for name, value in given.items() if value is not None]
        if len(budget) > 1:
            raise InputError(f"{' and '.join(budget)} exclude each other; give one budget.")
        if budget and not self.method:
            raise InputError(f"{budget[0]} needs a --method; `laconic methods` lists them.")
        if budget:
            Budget(self.keep, self.tokens, self.nbytes)  # refused before anything is imported or loaded

    def set_keep(self, keep: float | None) -> None:
        """Set `keep` as if it had been given."""
        self.keep = keep
        self._check_budget()

    @property
    def sees(self) -> bool:
        """Images were given."""
        return bool(self.image) or self.video is not None

    @property
    def hears(self) -> bool:
        """Sounds were given."""
        return bool(self.audio)

    @property
    def model_name(self) -> str:
        """The model that was named, or the shipped one that reads such input."""
        return model_for(self.model, self.sees, films=self.video is not None and not (self.image or self.as_images))

    def text(self) -> str:
        """The context's text; stdin can be read once.

        Raises:
            InputError, PromptError: it cannot be read, or neither it nor the question has anything in it.
        """
        text = "" if self.context is None else read_text(self.context)
        if self.context is not None and not text.strip():
            where = "stdin" if self.context == "-" else self.context
            raise InputError(f"--context {where} is empty; give a text, or drop --context to ask without one.")
        if not text.strip() and not self.question.strip():
            raise InputError("the prompt is empty; give --context, --question, or both.")
        return text


def model_for_own_documents() -> str:
    """A real model where it is installed; else the shipped one, and a line on stderr that its answers are noise there."""
    from laconic.pretrained import PretrainedError, ready

    try:
        ready(REAL_MODEL)
    except PretrainedError as error:
        told = f"{TEXT_MODEL} was trained on made-up notes, and its answers about other texts are noise; name a --model, or:"
        err().print(f"{told} {error}", style="yellow", markup=False, soft_wrap=True)
        return TEXT_MODEL
    return REAL_MODEL


def pairs(settings: list[str]) -> dict[str, str]:
    """Settings by name from pieces such as ``steps=100``."""
    given: dict[str, str] = {}
    for pair in settings:
        name, eq, text = pair.partition("=")
        if not eq or name in given:
            raise InputError(f"--set {pair}: give each setting once, as name=value.")
        given[name] = text
    return given


LOCAL = "local"
"""As an executor: this process."""


def ray_address(executor: str) -> str | None:
    """Where ``--executor ray``, ``ray://auto`` or ``ray://HOST:PORT`` finds its cluster; None: one is started here.

    Raises:
        InputError: it is written otherwise.
    """
    kind, separator, address = executor.partition("://")
    if kind != "ray" or bool(separator) != bool(address):
        raise InputError(f"--executor {executor}: choose {LOCAL}, ray, ray://auto or ray://HOST:PORT.")
    return (address if address == "auto" else executor) if address else None


def load(model: str, dtype: str, device: str | None, trust_remote_code: bool) -> tuple[Any, Any]:
    """The model and its tokenizer or processor, as `laconic.load` gives them."""
    import torch

    import laconic

    if dtype not in DTYPES:
        raise InputError(f"--dtype {dtype}: choose one of {', '.join(DTYPES)}.")
    quiet()
    kind = dtype if dtype == "auto" else getattr(torch, dtype)
    with spinner(f"loading {model}"):
        return laconic.load(model, dtype=kind, device=device, trust_remote_code=trust_remote_code)


def with_options(command: Callable[..., None]) -> Callable[..., None]:
    """A command whose first parameter is an `Options` takes each of its fields as an option.

    An option that the command declares itself under the same name takes the place of the shared one.
    """
    own_hints, hints = (get_type_hints(x, include_extras=True) for x in (command, Options))
    own = {
        name: parameter.replace(kind=parameter.KEYWORD_ONLY, annotation=own_hints[name])
        for name, parameter in list(inspect.signature(command).parameters.items())[1:]
    }
    shared = [
        inspect.Parameter(f.name, inspect.Parameter.KEYWORD_ONLY, default=f.default, annotation=hints[f.name])
        for f in fields(Options)
        if f.init
    ]
    parameters = [own.get(p.name, p) for p in shared]
    parameters += [p for name, p in own.items() if p not in parameters]
    from_options = [p.name for p in shared if p.name not in own]

    def called(**given: Any) -> None:
        options = Options(**{name: given.pop(name) for name in from_options})
        command(options, **given)

    called.__name__, called.__doc__ = command.__name__, command.__doc__
    called.__annotations__ = {p.name: p.annotation for p in parameters}
    called.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return called
