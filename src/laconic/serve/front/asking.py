"""What chat and completion requests have in common: from fields to a job for the worker."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from laconic.serve.compression import Compression
from laconic.serve.config import Config, Model
from laconic.serve.front.breakpoints import Breakpoint, CacheOptions
from laconic.serve.front.fields import Fields
from laconic.serve.job import Job
from laconic.serve.keys import Key
from laconic.serve.refusal import Refusal, invalid


@dataclass(frozen=True)
class Target:
    """What a model's name means: `M`, `M:PRESET` or `M@ctx_...`."""

    model: Model
    preset: str | None = None
    context: str | None = None


@dataclass
class Ask:
    """A request for answers, understood.

    Attributes:
        job: for the worker; its context is filled in once it is found.
        context: the id that was named. `wait`: for a context that is being made.
        stream, include_usage: as asked. `ignored`: fields that were given and change nothing.
        preset: if its compression is one of the operator's.
        cut: the context that the prompt begins with, up to a breakpoint; `life`: of it, in seconds after its latest use.
    """

    target: Target
    job: Job
    context: str | None = None
    wait: bool = True
    stream: bool = False
    include_usage: bool = False
    preset: str | None = None
    ignored: list[str] = field(default_factory=list)
    metadata: Mapping[str, str] | None = None
    cut: dict[str, Any] | None = None
    life: float = 0.0


def target_of(config: Config, key: Key, name: str) -> Target:
    """The model, and the preset or context, that a name stands for.

    Raises:
        Refusal: no such model or preset, or one that this key may not use.
    """
    models = {model.name: model for model in config.models}
    base, preset, context = name, None, None
    if base not in models and "@ctx_" in name:
        base, _, context = name.rpartition("@")
    elif base not in models and ":" in name:
        base, _, preset = name.rpartition(":")
    model = models.get(base)
    if model is None or (preset is not None and preset not in config.presets):
        raise Refusal(404, "model_not_found", "there is no such model; GET /v1/models lists them.", "model")
    allowed = config.limits_of(key.name).models
    if allowed and model.name not in allowed:
        raise Refusal(403, "model_not_allowed", "this key may not use this model.", "model")
    return Target(model, preset, context)


def compression_of(config: Config, model: Model, given: Any, preset: str | None, param: str) -> Compression | None:
    """The compression that a request spells out, or a preset's.

    Raises:
        Refusal: both, no such preset, or a method that is not allowed here.
    """
    if given is not None and preset is not None:
        raise invalid(param, "give compress or preset, not both.")
    if preset is not None:
        if preset not in config.presets:
            raise invalid("preset", f"there is no such preset; this server has {', '.join(config.presets) or 'none'}.")
        return config.presets[preset]
    if given is None:
        return None
    found = Compression.of(given, param)
    if model.allowed_methods and not set(found.methods) <= set(model.allowed_methods):
        raise invalid(f"{param}.method", f"allowed here: {', '.join(model.allowed_methods)}.")
    return found


def extension(fields: Fields, config: Config, ask: Ask, key_limit: float) -> Ask:
    """Read the object `laconic` of a request into `ask`.

    Raises:
        Refusal: more than one of a context, a compression, and a model's name with one of them.
    """
    inner = fields.inner("laconic")
    target, compress, preset, context = ask.target, None, ask.target.preset, ask.target.context
    seconds = key_limit
    if inner is not None:
        named = [preset or context, inner.raw("context"), inner.raw("compress"), inner.raw("preset")]
        if sum(one is not None for one in named) > 1:
            raise invalid("laconic", "give one of context, compress, preset, or a model's name with ':' or '@'.")
        context = inner.text("context", 64) or context
        preset = inner.text("preset", 128) or preset
        compress = inner.raw("compress")
        ask.wait = inner.flag("wait", True)
        seconds = inner.number("deadline_s", 0.001, key_limit, key_limit)
        ask.ignored += inner.rest(config.server.lenient)
    if context is not None and ask.job.messages:
        last = ask.job.messages[-1]["content"]
        if isinstance(last, str) and not last.strip():
            raise invalid("messages", "the last message asks the context nothing; write a question into it.")
    found = compression_of(config, target.model, compress, preset, "laconic.compress")
    ask.context, ask.preset = context, preset
    ask.job = Job(
        **{
            **vars(ask.job),
            "compress": None if found is None else found.facts(),
            "seconds": seconds,
        }
    )
    return ask


def cut(ask: Ask, found: Breakpoint | None, options: CacheOptions, config: Config) -> None:
    """Cut a request at its breakpoint: its compression, or the model's own, is that of the context before it.

    Raises:
        Refusal: it names a context already, or there is no context to be made before the breakpoint.
    """
    if found is None:
        ask.ignored += options.given
        return
    if ask.context is not None:
        raise invalid(found.mark.where, "the context that is named is the prefix; leave it or the breakpoint out.")
    if ask.job.compress is None:
        ask.preset = ask.target.model.default_preset
        preset = compression_of(config, ask.target.model, None, ask.preset, "laconic.compress")
        ask.job = replace(ask.job, compress=None if preset is None else preset.facts())
    ask.cut = {"compress": ask.job.compress, "salt": options.salt, **found.context_of(ask.job.messages)}
    ask.life = options.life(config, found.mark)
    ask.job = replace(ask.job, compress=None, whole=True)


def sampling_of(fields: Fields) -> dict[str, Any]:
    """Settings of sampling, as all routes call them."""
    found: dict[str, Any] = {
        "temperature": fields.number("temperature", 0, 2, 1.0),
        "top_p": fields.number("top_p", 0, 1, 1.0) or 1e-9,
        "seed": fields.whole("seed", -(2**63), 2**63 - 1),
        "frequency_penalty": fields.number("frequency_penalty", -2, 2, 0.0),
        "presence_penalty": fields.number("presence_penalty", -2, 2, 0.0),
    }
    bias = fields.raw("logit_bias")
    if bias is not None:
        whole = isinstance(bias, dict) and len(bias) <= 1024 and all(token.isascii() and token.isdigit() for token in bias)
        numbers = whole and all(
            isinstance(x, (int, float)) and not isinstance(x, bool) and -100 <= x <= 100 for x in bias.values()
        )
        if not numbers or any(len(token) > 9 for token in bias):
            raise invalid("logit_bias", "logit_bias has token ids and numbers between -100 and 100.")
        found["logit_bias"] = {token: float(x) for token, x in bias.items()}
    return found


def stops_of(fields: Fields) -> list[str]:
    """Up to four strings that end an answer."""
    value = fields.raw("stop")
    stops = [value] if isinstance(value, str) else value or []
    if not isinstance(stops, list) or len(stops) > 4 or not all(isinstance(x, str) and 0 < len(x) <= 256 for x in stops):
        raise invalid("stop", "stop is a text, or up to four, of at most 256 characters.")
    return list(stops)


def streaming(fields: Fields, ask: Ask) -> None:
    """Read `stream` and its options."""
    ask.stream = fields.flag("stream")
    options = fields.inner("stream_options")
    if options is not None:
        if not ask.stream:
            raise invalid("stream_options", "stream_options goes with stream=true.")
        ask.include_usage = options.flag("include_usage")
        ask.ignored += options.ignore(["include_obfuscation"]) + options.rest()
