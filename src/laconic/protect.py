"""Which tokens no method may remove: ranges, substrings of the prompt, the chat template's system turn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from jinja2.exceptions import TemplateError

from laconic.cache.cache import CompressedCache
from laconic.errors import ProtectError, SessionError
from laconic.method import Protect, Span
from laconic.step import Step


class Protection:
    """The protected spans of one cache, resolved as the prompt comes in.

    Args:
        wanted: specs of `laconic.method.Protect`, those of all methods.
        tokenizer: needed for substrings and ``"system"``.
    """

    def __init__(self, wanted: Sequence[Protect], tokenizer: Any | None):
        specs: list[str | Span] = []
        for protect in wanted:
            single = isinstance(protect, str) or _is_span(protect)
            specs += cast("list[str | Span]", [protect] if single else list(protect))
        self.spans: list[Span] = []
        self.texts: list[str] = []
        for spec in specs:
            if isinstance(spec, str):
                if tokenizer is None:
                    raise ProtectError(f"protect={spec!r} needs the tokenizer: pass compress(..., tokenizer=tokenizer).")
                if not spec:
                    raise ProtectError("protect='' is empty; give a substring of the prompt, 'system' or a token range.")
                self.texts.append(spec)
            elif _is_span(spec) and 0 <= spec[0] < spec[1]:
                self.spans.append((int(spec[0]), int(spec[1])))
            else:
                raise ProtectError(f"protect={spec!r}: a token range is (start, stop) with 0 <= start < stop.")
        self.tokenizer = tokenizer

    def __bool__(self) -> bool:
        return bool(self.spans or self.texts)

    def enter(self, cache: CompressedCache, ids: torch.Tensor | None, step: Step) -> None:
        """A pass begins: a prefill pass brings more of the prompt; one that decodes says that the prompt is complete."""
        if self and step.prefill:
            self.extend(cache, ids, step)
        else:
            self.finish(cache)

    def extend(self, cache: CompressedCache, ids: torch.Tensor | None, step: Step) -> None:
        """Mark what is protected in the prompt so far, of which `ids` [B, n] came with this pass."""
        if ids is None:
            raise SessionError("protect= needs input_ids; the model was called with inputs_embeds.")
        if cache.protection_checked:  # a later turn: its tokens are not part of the protected prompt
            return
        step = step.prompt
        ids = ids[:, : step.length]
        valid = torch.ones_like(ids, dtype=torch.bool) if step.valid is None else step.valid
        cache.ids = ids if cache.ids is None else torch.cat([cache.ids, ids], 1)
        cache.ids_valid = valid if cache.ids_valid is None else torch.cat([cache.ids_valid, valid], 1)
        cache.protected = self.mask(cache.ids, cache.ids_valid, ids.shape[1])

    def finish(self, cache: CompressedCache | None) -> None:
        """The prompt is complete (a token is decoded, or the session closes): check that all that is to be protected was in
        it."""
        if not self or cache is None or cache.protection_checked or cache.ids is None:
            return
        assert cache.ids_valid is not None
        self.check_found(cache.ids, cache.ids_valid)
        cache.protection_checked = True

    def mask(self, ids: torch.Tensor, valid: torch.Tensor, new: int) -> torch.Tensor:
        """Protected positions of a prompt.

        Args:
            ids: all tokens seen so far, [B, n], padding included.
            valid: False at padding, [B, n].
            new: how many of them came with this pass; a text that began earlier may have been evicted already.

        Returns:
            [B, n] bool.

        Raises:
            ProtectError: a range lies beyond the prompt, or a text spans two chunks.
        """
        protected = torch.zeros_like(valid)
        for b in range(ids.shape[0]):
            at = valid[b].nonzero()[:, 0]
            row = ids[b, at].tolist()
            for start, stop in self.spans:
                protected[b, at[start:stop]] = True
            for text in self.texts:
                for start, stop in self._find(text, row):
                    old = len(row) - int(valid[b, ids.shape[1] - new :].sum())
                    if start < old < stop:
                        raise ProtectError(f"protect={text!r} spans two prefill chunks; use a larger prefill_chunk_size.")
                    protected[b, at[start:stop]] = True
        return protected

    def check_found(self, ids: torch.Tensor, valid: torch.Tensor) -> None:
        """Raise when the prompt is complete and something to protect was not in it."""
        for b in range(ids.shape[0]):
            row = ids[b, valid[b]].tolist()
            for start, stop in self.spans:
                if stop > len(row):
                    raise ProtectError(f"protect=({start}, {stop}) ends beyond the prompt of {len(row)} tokens.")
            for text in self.texts:
                if not self._find(text, row):
                    what = "the prompt has no system turn" if text == "system" else "this text is not in the prompt"
                    raise ProtectError(f"protect={text!r}: {what} (sequence {b}, {len(row)} tokens).")

    def _find(self, text: str, row: list[int]) -> list[Span]:
        if text == "system":
            return self._system(row)
        found: list[Span] = []
        while (span := self._next(text, row, found[-1][1] if found else 0)) is not None:
            found.append(span)
        return found

    def _next(self, text: str, row: list[int], start: int) -> Span | None:
        """The fewest tokens from `start` on that hold the first occurrence."""
        if text not in self._decode(row[start:]):
            return None
        stop = _first(start + 1, len(row), lambda j: text in self._decode(row[start:j]))
        return _last(start, stop - 1, lambda i: text in self._decode(row[i:stop])), stop

    def _system(self, row: list[int]) -> list[Span]:
        """The system turn runs from the template's text before a system message to its text before the user's message."""
        assert self.tokenizer is not None
        if not getattr(self.tokenizer, "chat_template", None):
            raise ProtectError(
                "protect='system': this tokenizer has no chat template; protect a token range or a substring."
            )
        marks = "\u2402system\u2402", "\u2402user\u2402"
        chat = [{"role": "system", "content": marks[0]}, {"role": "user", "content": marks[1]}]
        try:
            frame = self.tokenizer.apply_chat_template(chat, tokenize=False)
        except TemplateError as error:
            raise ProtectError(f"protect='system': the chat template refuses a system message ({error}).") from error
        if marks[0] not in frame or marks[1] not in frame:
            raise ProtectError("protect='system': the chat template drops the system message.")
        head, rest = frame.split(marks[0])
        between = rest.split(marks[1])[0]
        text = self._decode(row)
        begin = text.find(head)
        end = text.find(between, begin + len(head)) if begin >= 0 and between else -1
        if end < 0:
            return []
        whole = text[: end + len(between)]
        return [(0, _first(1, len(row), lambda j: len(self._decode(row[:j])) >= len(whole)))]

    def _decode(self, ids: list[int]) -> str:
        assert self.tokenizer is not None
        return str(self.tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False))


def _is_span(x: Any) -> bool:
    return isinstance(x, (tuple, list)) and len(x) == 2 and all(isinstance(i, int) and not isinstance(i, bool) for i in x)


def _first(low: int, high: int, true: Any) -> int:
    """Smallest number in [low, high] where the monotone test holds (it holds at `high`)."""
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if true(middle) else (middle + 1, high)
    return low


def _last(low: int, high: int, true: Any) -> int:
    """Largest number in [low, high] where the monotone test holds (it holds at `low`)."""
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if true(middle) else (low, middle - 1)
    return low
