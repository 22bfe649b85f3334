"""The seam between a prompt and its answer: it says when thinking ends, and feeds the steps that have no words.

Tokens are forced in the logits of the pass before them, so whatever chooses tokens (`generate()` greedily or by sampling, a
pipeline, the caller's own loop) chooses these. A step without words is an ordinary step of `generate()`: a placeholder comes
out, and in the next pass the decoder reads a vector in the place of its embedding. So batches, caches and the methods that
shorten them need to know nothing about thinking.
"""

from __future__ import annotations

import threading
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from laconic.cache.cache import CompressedCache
from laconic.decode.marks import end_of_thinking, latent_token
from laconic.decode.thought import FREE, Thought
from laconic.errors import SessionError
from laconic.seams import Host, Order, Seam
from laconic.step import Step

if TYPE_CHECKING:
    from laconic.decode.contract import ReasoningMethod


class _Pass(threading.local):
    """What the last layer said in the pass of this thread: hidden states of the last position, [B, d]."""

    hidden: Tensor | None = None


class ThoughtSeam(Seam):
    """One method decides, for every row of every cache, what comes between the prompt and the answer."""

    order = Order.THOUGHT
    single = True
    methods: tuple[ReasoningMethod, ...]

    def __init__(self, host: Host, methods: tuple[ReasoningMethod, ...]):
        super().__init__(host, methods)
        self.method = methods[0]
        self._thoughts: WeakKeyDictionary[CompressedCache, Thought] = WeakKeyDictionary()
        self._pass = _Pass()

    def prepare(self) -> None:
        model, tokenizer = self.host.model, self.host.tokenizer
        self.mark = end_of_thinking(model, tokenizer, self.method.mark)
        self.opening = tuple(self.method.opening(tokenizer))
        ends = model.generation_config.eos_token_id if model.generation_config is not None else None
        self.ends = [ends] if isinstance(ends, int) else list(ends or ())
        self.latents = getattr(self.method, "latents", None)
        self.placeholder = latent_token(tokenizer)
        if self.latents is not None and self.placeholder is None:
            raise SessionError(
                f"{self.method.name} takes steps without words, and this tokenizer has no token <latent> that could stand "
                "for them; add one, and fit the method with it."
            )

    def install(self, restore: ExitStack) -> None:
        restore.callback(self._thoughts.clear)
        restore.enter_context(self.method.running(self.host.model))
        restore.callback(self.host.model.register_forward_hook(self._after_model).remove)

    def enter(self, kwargs: dict[str, Any], step: Step, ids: Tensor | None) -> dict[str, Any]:
        self._pass.hidden = None
        cache = self._cache
        if step.prefill and not step.generated:  # perhaps the last piece of a prompt: nothing has been said after it
            rows = kwargs["inputs_embeds" if kwargs.get("input_ids") is None else "input_ids"]
            self._thoughts[cache] = Thought(len(rows), self.opening, self.mark, self.ends, rows.device)
            return kwargs
        thought = self._thoughts.get(cache)
        if thought is None or step.length != 1 or ids is None:
            raise SessionError(
                f"{self.method.name} follows an answer token by token from its prompt on: no drafts (assisted decoding), no "
                "embeddings for generated tokens, and no cache whose answer began in another session."
            )
        thought.take(ids[:, -1])
        if bool(thought.wordless.any()):
            kwargs = dict(kwargs)
            words = self.host.stack.get_input_embeddings()(kwargs.pop("input_ids"))  # type: ignore[operator]
            vectors = thought.vectors
            assert vectors is not None
            kwargs["inputs_embeds"] = torch.where(thought.wordless[:, None, None], vectors[:, None].to(words.dtype), words)
        return kwargs

    def leave(self, output: Any, step: Step) -> Any:
        self._pass.hidden = output.last_hidden_state[:, -1]
        return output

    def _after_model(self, module: nn.Module, args: Any, output: Any) -> None:
        """Force what must come next, in the logits [B, V] of the last position."""
        thought, hidden, step = self._thoughts.get(self._cache), self._pass.hidden, self._cache.step
        if thought is None or hidden is None or step is None:
            return
        logits = output.logits[:, -1]
        with self._cache.figures.work(step):
            wordless = torch.zeros_like(thought.closed)
            if thought.opened:
                thought.end(self.method.over(thought))
                if self.latents is not None and bool(thought.thinks.any()):
                    found = self.latents(thought, hidden, logits)
                    thought.end(found.over)
                    thought.vectors, wordless = found.vectors, found.wordless
            forced = thought.next(wordless, self.placeholder if self.placeholder is not None else FREE)
            rows = forced != FREE
            if bool(rows.any()):
                changed = output.logits.clone() if output.logits.requires_grad else output.logits
                changed[rows, -1] = -torch.inf
                changed[rows, -1, forced[rows]] = 0.0
                output.logits = changed

    @property
    def _cache(self) -> CompressedCache:
        """Of the call that runs in this thread."""
        call = self.host.running.call
        assert call is not None
        return call.cache
