"""A memory: what stands for a context in a prompt, soft tokens or a prefix, what it was made of, and its file."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from transformers import PreTrainedModel

from laconic.artifact import fingerprint, model_name
from laconic.atomic import replacing
from laconic.cache.attention import NAME as SESSION
from laconic.cache.cache import CompressedCache
from laconic.cache.described import described, rebuilt
from laconic.cache.saved import tokenizer_hash
from laconic.errors import ConflictError, SavedContextError, SessionError
from laconic.families import family_of
from laconic.families.vision.merged import merged
from laconic.measure.cost import Shape
from laconic.memory.compressor import embedded
from laconic.memory.contract import MemoryMethod
from laconic.memory.prefix import Prefix
from laconic.memory.segments import pieced
from laconic.memory.store import SegmentStore
from laconic.method import Method
from laconic.prompts import media
from laconic.prompts import text as prompts
from laconic.prompts.inputs import on_device
from laconic.prompts.reader import tokenizer_of
from laconic.prompts.text import Prompt, PromptError
from laconic.specs import methods_of
from laconic.version import versions

FORMAT = 1
KEY = "laconic_memory"
"""The key of the safetensors header that holds the facts, as JSON."""


@dataclass(frozen=True)
class Memory:
    """A context in a few vectors, which stand in its place in any prompt of the same model.

    Attributes:
        content: soft tokens [m, d], fp32, in the model's space of input embeddings; or a prefix of one row, for the cache.
        ids: token ids of the context. `method`: what made it.
        facts: model, fingerprint, tokenizer and artifact that it belongs to, by hash.
        seconds, flops: what making it took; 0 for one that was loaded.
        opening: of a prefix, which holds their entries, too: ids that stand before the context.
        images: how many the context shows; it is text where there are none.
        segments, made: of a memory from a store of segments: how many the context has, and how many were not in the store.
    """

    content: Tensor | Prefix = field(repr=False)
    ids: tuple[int, ...] = field(repr=False)
    method: MemoryMethod
    facts: dict[str, Any] = field(repr=False)
    seconds: float = 0.0
    flops: int = 0
    opening: tuple[int, ...] = field(default=(), repr=False)
    images: int = 0
    segments: int = 0
    made: int = 0

    @staticmethod
    def of(
        model: PreTrainedModel,
        tokenizer: Any,
        text: str | list[int],
        method: MemoryMethod | str,
        opening: list[int] | None = None,
        store: SegmentStore | None = None,
    ) -> Memory:
        """The memory of a context.

        Args:
            text: the context, or its token ids.
            method: what makes it, or its text, ``"NAME:keep=0.25"``.
            opening: ids that will stand before it in prompts, for a prefix; None: those of the chat template.
            store: of segments. Those that it holds are not compressed again, whatever document they came from; the others
                are put there. A document that was edited costs what the segments cost that have changed.

        Raises:
            PromptError: a context without a token.
            LaconicError: no weights for this model, or a share that they were not trained for.
            ConflictError: a `store` for a method whose segments do not stand for themselves.
            SessionError: inside a session of this model.
        """
        made = _maker(model, method)
        made.check_reads(images=False)
        if isinstance(text, str):
            prompts.check_text("context", text)
        tokens: list[int] = tokenizer.encode(text, add_special_tokens=False) if isinstance(text, str) else text
        if not tokens:
            raise PromptError("the context is empty; there is nothing to remember.")
        if opening is None and not made.neutral:
            shown = prompts.build(tokenizer, tokenizer.decode(tokens), "?")
            opening = shown.context[: shown.opening]
        return Memory._made(model, tokenizer, made, tokens, opening or [], store=store)

    @staticmethod
    def of_images(model: PreTrainedModel, reader: Any, prompt: Prompt, images: int, method: MemoryMethod | str) -> Memory:
        """The memory of the images in a prompt, as `laconic.prompts.media.build` makes it.

        Args:
            prompt: one whose context is images alone. `images`: how many.

        Raises:
            PromptError: text among the images, sound or video, or a method that reads text. Else as `of`.
        """
        made = _maker(model, method)
        made.check_reads(images=True)
        context = prompt.context[prompt.opening :]
        if not images or len(set(context)) > 1:
            raise PromptError(f"{made.name} makes a memory of images alone; put all text into the question.")
        began = time.perf_counter()
        ids = torch.tensor([prompt.context], device=model.device)
        shown = merged(model, {**on_device(model, prompt.inputs), "input_ids": ids})[0, prompt.opening :]
        encoded = time.perf_counter() - began
        opening = prompt.context[: prompt.opening]
        memory = Memory._made(model, tokenizer_of(reader), made, context, opening, shown)
        return replace(memory, images=images, seconds=memory.seconds + encoded)

    @staticmethod
    def _made(
        model: PreTrainedModel,
        tokenizer: Any,
        method: MemoryMethod,
        ids: list[int],
        opening: Sequence[int],
        shown: Tensor | None = None,
        store: SegmentStore | None = None,
    ) -> Memory:
        """The memory of a context's ids, or of its embeddings `shown` [n, d] where it shows images."""
        method.attach(model)
        facts = {
            "model": model_name(model),
            "fingerprint": fingerprint(model),
            "tokenizer": tokenizer_hash(tokenizer),
            "artifact": method.digest,
            "version": method.version,
        }
        if method.neutral:
            plain = embedded(model, torch.tensor([ids], device=model.device))[0] if shown is None else shown.float()
            return Memory(plain.cpu(), tuple(ids), method, facts)
        began, shape = time.perf_counter(), Shape.of(model, family_of(model).stack(model))
        if store is not None:
            whole = pieced(method, model, ids, shape, store)
            seconds, pieces, new = time.perf_counter() - began, whole.segments, whole.made
            return Memory(whole.soft, tuple(ids), method, facts, seconds, whole.flops, segments=pieces, made=new)
        found = method.compress(model, ids if shown is None else shown, opening)
        seconds = method.spent + time.perf_counter() - began
        flops = method.flops(shape, len(ids), len(opening))
        if isinstance(found, Prefix):
            kept = found.map(lambda x: x.cpu())
            return Memory(kept, tuple(ids), method, facts, seconds, flops, tuple(opening))
        return Memory(found.cpu(), tuple(ids), method, facts, seconds, flops)

    @staticmethod
    def joined(memories: Sequence[Memory]) -> Memory:
        """Memories one after another as one.

        Raises:
            ConflictError: they belong to different models, tokenizers or artifacts, have different shares, or are prefixes.
            ValueError: there are none.
        """
        if not memories:
            raise ValueError("there are no memories to join; give at least one.")
        first, *others = memories
        for other in others:
            if other.method.keep != first.method.keep:
                raise ConflictError(
                    f"memories of keep={first.method.keep} and keep={other.method.keep} do not go into one; make them again "
                    "with one share."
                )
            if wrong := sorted(name for name in first.facts if other.facts[name] != first.facts[name]):
                raise ConflictError(f"memories of different {wrong[0]} do not go into one prompt; make them again with one.")
        soft = torch.cat([memory.soft for memory in memories])
        ids = tuple(token for memory in memories for token in memory.ids)
        counts = ("seconds", "flops", "segments", "made")
        return Memory(soft, ids, first.method, first.facts, **{x: sum(getattr(m, x) for m in memories) for x in counts})

    def __str__(self) -> str:
        if self.prefix is None:
            return f"{len(self.ids):,} tokens in {self.entries:,} soft tokens, {self.method}"
        before = f", and {len(self.opening)} before them," if self.opening else ""
        return f"{len(self.ids):,} tokens{before} in {self.entries:,} entries of every KV head, {self.method}"

    @property
    def prefix(self) -> Prefix | None:
        """Its keys and values; None where it is soft tokens."""
        return self.content if isinstance(self.content, Prefix) else None

    @property
    def soft(self) -> Tensor:
        """Its soft tokens [m, d].

        Raises:
            ConflictError: it is a prefix.
        """
        if isinstance(self.content, Prefix):
            raise ConflictError(
                f"{self.method.name} makes keys and values, which have positions of their own; what compares or joins "
                "memories needs a method that makes soft tokens."
            )
        return self.content

    @property
    def entries(self) -> int:
        """Entries that the memory takes in every KV head's cache; a prefix holds those of the opening, too."""
        return len(self.soft) if self.prefix is None else self.prefix.entries

    @property
    def keep(self) -> float:
        """The share of the context's tokens that its method was to keep."""
        return self.entries / (len(self.opening) + len(self.ids)) if self.method.keep is None else self.method.keep

    @property
    def saved_tokens(self) -> int:
        """How many tokens shorter a prompt is with this memory in the context's place, as the model counts positions."""
        if self.prefix is not None:
            return len(self.opening) + len(self.ids) - self.prefix.seen
        return len(self.ids) - self.entries

    def cache(self, model: PreTrainedModel) -> CompressedCache | None:
        """A new cache that holds the prefix, for calls inside a session; None where the memory is soft tokens."""
        return None if self.prefix is None else self.prefix.compressed(model)

    def inside(self, model: PreTrainedModel, prompt: Prompt) -> Prompt:
        """`prompt` with the memory in the place of its context. Soft tokens and entries have ids, too, which nothing reads;
        positions are contiguous over the mixed sequence. A prefix has to be given as the `cache`.

        Raises:
            PromptError: other tokens stand before the context than those that a prefix was made with.
        """
        opening, vocabulary = prompt.context[: prompt.opening], model.get_input_embeddings().num_embeddings  # type: ignore[attr-defined,union-attr]
        filler = model.config.get_text_config().pad_token_id
        filler = filler if filler is not None and 0 <= filler < vocabulary else 0
        if self.prefix is not None:
            if tuple(opening) != self.opening:
                raise PromptError(
                    "this memory holds keys and values of what stood before the context when it was made, and this prompt "
                    "opens otherwise (system message, earlier turns or chat template); ask without these, or make it anew."
                )
            return replace(prompt, context=[filler] * self.prefix.seen, inputs={})
        context = [*opening, *[filler] * len(self.soft)]
        ids = torch.tensor([context + prompt.question], device=model.device)
        embeddings = embedded(model, ids)
        embeddings[0, len(opening) : len(context)] = self.soft.to(embeddings.device)
        inputs = {**prompt.inputs, "inputs_embeds": embeddings.to(model.dtype)}
        return replace(prompt, context=context, inputs=inputs)

    def prompt(self, reader: Any, question: str, **parts: Any) -> Prompt:
        """The context's own tokens with a question; see `laconic.prompts.text.build` for the `parts`. A context of images
        takes the model's processor; the images themselves are not needed again."""
        tokenizer = tokenizer_of(reader)
        if tokenizer_hash(tokenizer) != self.facts["tokenizer"]:
            raise SavedContextError("this memory was made with another tokenizer, so its token ids mean something else.")
        if self.images:
            if parts.pop("history", ()):
                raise PromptError("a memory of images goes without earlier turns; leave history out.")
            return media.continued(reader, [*self.opening, *self.ids], self.images, "", question, **parts)
        text = tokenizer.decode(list(self.ids), skip_special_tokens=False)
        return prompts.build(tokenizer, text, question, **parts)

    def inputs(self, model: PreTrainedModel, reader: Any, question: str, **parts: Any) -> dict[str, Any]:
        """What ``model.generate(**inputs)`` takes, once: embeddings [1, n, d] and their mask, inside a session or not; of a
        prefix the ids and the cache that begins with it, inside a session (``laconic.compress(model)``)."""
        prompt = self.inside(model, self.prompt(reader, question, **parts))
        mask = torch.ones(1, prompt.tokens, dtype=torch.long, device=model.device)
        if self.prefix is None:
            return {"inputs_embeds": prompt.inputs["inputs_embeds"], "attention_mask": mask}
        ids = torch.tensor([prompt.ids], device=model.device)
        return {"input_ids": ids, "attention_mask": mask, "past_key_values": self.cache(model)}

    def save(self, path: str | Path) -> None:
        """Write one safetensors file, whole or not at all.

        Raises:
            SavedContextError: the file cannot be written.
        """
        tensors = {"ids": torch.tensor(self.ids)}
        own = {"format": FORMAT, "method": described(self.method), "seconds": self.seconds, "flops": self.flops}
        if self.prefix is None:
            tensors["soft"] = self.soft.contiguous()
        else:
            tensors |= {f"keys.{i}": x.contiguous() for i, x in enumerate(self.prefix.keys)}
            tensors |= {f"values.{i}": x.contiguous() for i, x in enumerate(self.prefix.values)}
            own |= {"seen": self.prefix.seen, "layers": len(self.prefix.keys), "opening": list(self.opening)}
            own["images"] = self.images
        facts = {**own, **self.facts, "versions": versions(), "keep": self.keep}
        header = json.dumps(facts, sort_keys=True)
        try:
            with replacing(Path(path)) as unfinished:
                save_file(tensors, unfinished, {KEY: header, "sha256": _checksum(header, tensors)})
        except (OSError, SafetensorError) as error:
            raise SavedContextError(f"cannot write the memory {str(path)!r}: {error}; choose another file.") from error

    @staticmethod
    def load(path: str | Path, model: PreTrainedModel, reader: Any) -> Memory:
        """The memory in a file, for the model that it was made for.

        Raises:
            SavedContextError: no such file, truncated or altered, or made with another model, tokenizer or version of its
                method.
        """
        facts, tensors = _read(Path(path))
        if facts["fingerprint"] != fingerprint(model):
            raise SavedContextError(f"{path} was made with other weights ({facts['model']}); load that model.")
        if facts["tokenizer"] != tokenizer_hash(tokenizer_of(reader)):
            raise SavedContextError(f"{path} was made with another tokenizer, so its token ids mean something else.")
        method: Method = rebuilt(facts["method"])
        if not isinstance(method, MemoryMethod) or facts["version"] != method.version:
            raise SavedContextError(f"{path} was made by another version of {method.name}; make the memory again.")
        kept = {name: facts[name] for name in ("model", "fingerprint", "tokenizer", "artifact", "version")}
        ids = tuple(tensors["ids"].tolist())
        if "layers" not in facts:
            return Memory(tensors["soft"], ids, method, kept)
        keys, values = (tuple(tensors[f"{name}.{i}"] for i in range(facts["layers"])) for name in ("keys", "values"))
        prefix, opening = Prefix(keys, values, facts["seen"]), tuple(facts["opening"])
        return Memory(prefix, ids, method, kept, opening=opening, images=facts.get("images", 0))


def _maker(model: PreTrainedModel, method: MemoryMethod | str) -> MemoryMethod:
    """The method that makes a memory, of an unmodified model."""
    (made,) = methods_of([method])
    if not isinstance(made, MemoryMethod):
        raise TypeError(f"{made.name} acts on the {type(made).__name__}; a memory is made by a method of the site memory.")
    if family_of(model).stack(model).config._attn_implementation == SESSION:
        raise SessionError("a memory is made before a session is opened, by the unmodified model; make it outside.")
    return made


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Facts and tensors of a file, its checksum checked."""
    try:
        with safe_open(path, "pt") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no dictionary)
    except FileNotFoundError:
        raise SavedContextError(f"{path} does not exist.") from None
    except (OSError, SafetensorError) as error:
        raise SavedContextError(f"{path} is truncated or not a memory: {error}.") from error
    if KEY not in header:
        raise SavedContextError(f"{path} is a safetensors file, but not a memory that laconic saved.")
    if header.get("sha256") != _checksum(header[KEY], tensors):
        raise SavedContextError(f"{path} was altered: its checksum does not match; make the memory again.")
    facts: dict[str, Any] = json.loads(header[KEY])
    if facts["format"] != FORMAT:
        raise SavedContextError(f"{path} has format {facts['format']}; this version of laconic reads format {FORMAT}.")
    return facts, tensors


def _checksum(header: str, tensors: dict[str, Tensor]) -> str:
    """SHA-256 of the header and of every tensor's name, type, shape and bytes."""
    digest = hashlib.sha256(header.encode())
    for name, x in sorted(tensors.items()):
        digest.update(f"{name}{x.dtype}{tuple(x.shape)}".encode())
        digest.update(x.contiguous().flatten().view(torch.uint8).numpy().tobytes() if x.numel() else b"")
    return digest.hexdigest()
