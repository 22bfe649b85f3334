"""The inputs of `run` and `inspect`: option types, their checks, and what they turn into."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

import typer

from laconic.cli import common
from laconic.cli.common import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from laconic.media import Frame
    from laconic.method import Method, Span
    from laconic.prompts.text import Prompt

DTYPES = ("auto", "float32", "bfloat16", "float16")
TEXT_MODEL, IMAGE_MODEL = "testbed/lm", "testbed/vlm"
"""Models that are shipped, and taken when none is named."""
TRAINED_TOKENS = {TEXT_MODEL: 2048, IMAGE_MODEL: 192, "testbed/vlm-large": 800}
"""Longest chats that a testbed model was trained on; its positions reach further."""

Model = Annotated[str, typer.Option("--model", "-m", help="testbed/lm, testbed/vlm, a local folder, or a Hugging Face id.")]
AnyModel = Annotated[
    str | None,
    typer.Option("--model", "-m", help="A local folder or a Hugging Face id; default: testbed/lm, with images testbed/vlm."),
]
Methods = Annotated[
    list[str] | None,
    typer.Option("--method", help="E.g. snapkv or adakv:scorer=keydiff; repeat to combine; none: nothing is compressed."),
]
Keep = Annotated[float | None, typer.Option("--keep", help="Share of the tokens kept, 0 < keep <= 1.")]
Tokens = Annotated[int | None, typer.Option("--tokens", help="Entries kept per layer and head instead.")]
Bytes = Annotated[int | None, typer.Option("--bytes", help="Bytes of keys and values instead.")]
Context = Annotated[str | None, typer.Option("--context", help="UTF-8 text file; - reads stdin.")]
Image = Annotated[
    list[str] | None, typer.Option("--image", help="JPEG, PNG, WebP or GIF, for a vision model; repeat to show several.")
]
Video = Annotated[
    str | None, typer.Option("--video", help="A video file, an animation, or a folder of frames, shown as images.")
]
Frames = Annotated[int | None, typer.Option("--frames", min=1, help="Frames of the video, evenly spread; default: 8.")]
Question = Annotated[str, typer.Option("--question", "-q", help="What to ask about the context.")]
AnswerPrefix = Annotated[str, typer.Option("--answer-prefix", help="Opens the answer; the model goes on from there.")]
System = Annotated[str | None, typer.Option("--system", help="System message.")]
Protect = Annotated[
    list[str] | None,
    typer.Option("--protect", help="Never removed: 'system', a token range '10:20', or text of the prompt. Repeatable."),
]
MaxNewTokens = Annotated[int, typer.Option("--max-new-tokens", min=1, help="Longest answer.")]
QueryAgnostic = Annotated[bool, typer.Option("--query-agnostic", help="Compress the context before the question is known.")]
CacheFile = Annotated[
    str | None,
    typer.Option(
        "--cache",
        help="Compress the context once into this file, whatever the question; when it exists, ask it: no --context needed.",
    ),
]
Chunk = Annotated[
    int | None, typer.Option("--prefill-chunk-size", min=1, help="Read the prompt in pieces of so many tokens.")
]
Dtype = Annotated[str, typer.Option("--dtype", help=f"Of the weights: {', '.join(DTYPES)}.")]
Device = Annotated[str | None, typer.Option("--device", help="cpu, cuda, cuda:1 ...; default: a GPU when there is one.")]
Seed = Annotated[int, typer.Option("--seed", help="For sampling.")]
Sample = Annotated[bool, typer.Option("--sample", help="Sample the answer; default: greedy.")]
Temperature = Annotated[float | None, typer.Option("--temperature", help="Of sampling (1.0); implies --sample.")]
Json = Annotated[bool, typer.Option("--json", help="Only JSON on stdout.")]
Trust = Annotated[bool, typer.Option("--trust-remote-code", help="Run code that comes with the checkpoint.")]


def model_for(model: str | None, sees: bool) -> str:
    """The model that was named, or the shipped one that reads such input."""
    return model or (IMAGE_MODEL if sees else TEXT_MODEL)


@dataclass
class Request:
    """What was asked, checked. `warnings` collects what must not stay silent."""

    model: str
    method: list[str] | None
    keep: float | None
    tokens: int | None
    nbytes: int | None
    context: str | None
    question: str
    answer_prefix: str
    system: str | None
    protect: list[str] | None
    max_new_tokens: int
    query_agnostic: bool
    prefill_chunk_size: int | None
    dtype: str
    device: str | None
    seed: int
    sample: bool
    temperature: float | None
    trust_remote_code: bool
    image: list[str] | None = None
    video: str | None = None
    frames: int | None = None
    warnings: list[str] = field(default_factory=list)
    processor: Any = field(default=None, init=False)
    """Of a vision language model, once it is loaded."""

    def __post_init__(self) -> None:
        given = {"--keep": self.keep, "--tokens": self.tokens, "--bytes": self.nbytes}
        budget = [name for name, value in given.items() if value is not None]
        if len(budget) > 1:
            raise InputError(f"{' and '.join(budget)} exclude each other; give one budget.")
        if budget and not self.method:
            raise InputError(f"{budget[0]} needs a --method; `laconic methods` lists them.")
        if self.dtype not in DTYPES:
            raise InputError(f"--dtype {self.dtype}: choose one of {', '.join(DTYPES)}.")
        if self.temperature is not None and not 0 < self.temperature < float("inf"):
            raise InputError(f"--temperature {self.temperature} must be above 0.")
        self.sample = self.sample or self.temperature is not None
        if self.query_agnostic and not (self.context or self.sees):
            raise InputError("--query-agnostic compresses a context before the question; give --context.")
        if self.frames is not None and self.video is None:
            raise InputError(f"--frames {self.frames} are those of a --video; give one.")
        if self.sees and self.prefill_chunk_size:
            raise InputError(
                "--prefill-chunk-size does not go with images: transformers loses them when it reads a prompt in pieces."
            )

    @property
    def sees(self) -> bool:
        """Images were given."""
        return bool(self.image) or self.video is not None

    def methods(self) -> list[Method]:
        """The methods, with the common budget where their spec names none. What goes on top of a method that chooses
        entries, such as a quantiser, does as its own parameters say: one budget is not spent twice."""
        from laconic.cache.storage import StorageMethod
        from laconic.method import create_method, find

        specs = self.method or ()
        storage = {spec: issubclass(find(spec.partition(":")[0].strip()).cls, StorageMethod) for spec in specs}
        budget = {"keep": self.keep, "tokens": self.tokens, "bytes": self.nbytes}
        return [create_method(spec, **({} if storage[spec] and not all(storage.values()) else budget)) for spec in specs]

    def protected(self) -> list[str | Span]:
        """`--protect` values as `compress` takes them."""
        return [_span(text) for text in self.protect or ()]

    def text(self) -> str:
        """The context's text.

        Raises:
            InputError: neither a context nor a question has anything in it.
        """
        text = "" if self.context is None else common.read_text(self.context)
        if not text.strip() and not self.question.strip():
            raise InputError("the prompt is empty; give --context, --question, or both.")
        return text

    def images(self) -> list[Frame]:
        """What `--image` and `--video` show.

        Raises:
            MediaError: one of them cannot be shown.
        """
        from laconic.media import gather

        shown, notes = gather(self.image or (), self.video, self.frames)
        self.warnings += notes
        return shown

    def load(self) -> tuple[PreTrainedModel, Any]:
        """Model and tokenizer; the processor of a vision language model becomes `processor`.

        Raises:
            InputError: no such model, a device that is not there, or images for a model that sees none.
        """
        import torch

        from laconic.loading import load, tokenizer_of

        common.quiet()
        try:
            if self.device is not None:
                torch.empty(0, device=self.device)
            dtype = self.dtype if self.dtype == "auto" else getattr(torch, self.dtype)
            with common.spinner(f"loading {self.model}"):
                model, reader = load(self.model, dtype=dtype, device=self.device, trust_remote_code=self.trust_remote_code)
        except (OSError, ValueError, RuntimeError, AssertionError, ImportError) as error:
            raise InputError(f"cannot load --model {self.model}: {_first_sentence(error)}") from error
        tokenizer = tokenizer_of(reader)
        self.processor = None if reader is tokenizer else reader
        if self.sees and self.processor is None:
            raise InputError(
                f"--model {self.model} is a {model.config.model_type} model, which laconic cannot show images; drop "
                "--image and --video, or give a vision language model."
            )
        return model, tokenizer

    def prompt(self, tokenizer: Any, context: str, shown: Sequence[Frame] = ()) -> Prompt:
        """The prompt's ids; an agnostic run needs something behind the context."""
        from laconic.prompts import media as media
        from laconic.prompts.text import build

        parts: dict[str, Any] = {"answer_prefix": self.answer_prefix, "system": self.system}
        if self.processor is not None and (shown or getattr(self.processor, "chat_template", None)):
            images = [frame.image for frame in shown]
            prompt = media.build(self.processor, images, context, self.question, **parts)
        else:
            prompt = build(tokenizer, context, self.question, **parts)
        if self.query_agnostic and not (prompt.context and prompt.question):
            raise InputError("--query-agnostic needs a context and a question after it.")
        return prompt

    def check_length(self, model: PreTrainedModel, prompt: Prompt) -> None:
        """Prompts longer than the model's positions, or than it was trained on, are said aloud."""
        text = model.config.get_text_config()
        limit = getattr(text, "max_position_embeddings", None)
        need = prompt.tokens + self.max_new_tokens
        if limit and need > limit:
            self.warnings.append(
                f"prompt and answer take {prompt.tokens} + {self.max_new_tokens} tokens, but the model has {limit} "
                "positions; its answers beyond them are not to be trusted."
            )
        trained = getattr(text, "trained_tokens", None) or TRAINED_TOKENS.get(self.model)
        if trained and prompt.tokens > trained:
            self.warnings.append(
                f"the prompt has {prompt.tokens} tokens, but {self.model} was trained on chats of at most {trained}."
            )


def _span(text: str) -> str | Span:
    match = re.fullmatch(r"(\d+):(\d+)", text)
    return (int(match[1]), int(match[2])) if match else text


def _first_sentence(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
