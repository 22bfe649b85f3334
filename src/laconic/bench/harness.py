"""EleutherAI's lm-evaluation-harness on a compressed model: RULER, LongBench, GSM8K and the rest with any method.

The harness finds models in its own registry and reads no entry points, so one of ours has to be registered first: importing
this module does it, and so does ``python -m laconic.bench.harness``, which takes the arguments of ``lm_eval`` unchanged::

    python -m laconic.bench.harness --model laconic --model_args pretrained=testbed/lm,method=NAME,keep=0.2 --tasks ...
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence
from tqdm import tqdm

import laconic
from laconic.deprecated import warn
from laconic.engine.engine import Engine, Request
from laconic.errors import SessionError
from laconic.measure.stats import Stats
from laconic.method import Method
from laconic.session import Session, compress
from laconic.shipped import MODELS, model_path
from laconic.specs import create_methods

try:
    import lm_eval.models  # noqa: F401  fills the registry with the harness's own models
    from lm_eval.api.registry import model_registry
    from lm_eval.models.huggingface import HFLM
    from lm_eval.models.utils_hf import stop_sequences_criteria
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        f"{error}: this adapter needs lm-evaluation-harness; install it with: pip install 'laconic-transformers[bench]'"
    ) from error

NAME = "laconic"
Continuation = tuple[tuple[str, str] | None, list[int], list[int]]
"""(the strings, or None; context ids; continuation ids), as the harness hands them over."""
Score = tuple[float, bool]
"""Log-likelihood of a continuation, and whether greedy decoding would have produced it."""

logger = logging.getLogger(__name__)


@dataclass
class HarnessTotals:
    """Sums over the contexts that were compressed, each taken when its last token had been read."""

    contexts: int = 0
    asked: float = 0.0
    achieved: float = 0.0
    kv_bytes: int = 0
    kv_bytes_full: int = 0

    def add(self, stats: Stats, contexts: int) -> None:
        """A batch of `contexts` whose shares are means over it and whose bytes are sums."""
        self.contexts += contexts
        self.asked += contexts * stats.asked
        self.achieved += contexts * stats.achieved
        self.kv_bytes += stats.kv_bytes
        self.kv_bytes_full += stats.kv_bytes_full

    def as_dict(self) -> dict[str, float]:
        """Mean shares per context, and bytes over all contexts."""
        count = max(1, self.contexts)
        means = {"asked": self.asked / count, "achieved": self.achieved / count}
        return {"contexts": self.contexts, **means, "kv_bytes": self.kv_bytes, "kv_bytes_full": self.kv_bytes_full}


class LaconicLM(HFLM):
    """The harness's Hugging Face model, with every request answered or scored by laconic's engine.

    `generate_until` compresses the whole prompt, the question in view. `loglikelihood` compresses the context alone; the
    continuation is stored whole and scored against what is left, so a multiple-choice task measures the compressed
    context. Contexts are read one by one there, whatever `batch_size` says.

    Args:
        pretrained: a Hugging Face id, a folder, or ``"testbed/lm"``.
        method: as `laconic.create_method` reads it, several joined with ``+``; none: nothing is compressed. `model_args`
            splits at commas, so write ``;`` between parameters: ``NAME:key=value;key=value``.
        keep, tokens, bytes: the budget, for methods whose own spec names none; see `build`.
        mode: ``"in view"``, the only one: a request does not say where its context ends and its question begins.
        options: of the harness's ``hf`` model: dtype, device, batch_size, max_length ...

    Attributes:
        methods: what runs, on `engine`; `figures`: what it stored.

    Raises:
        ValueError: another mode.
        LaconicError: an unknown method, a bad budget, methods or a model that do not fit; before any request.
    """

    def __init__(
        self,
        pretrained: Any,
        method: str | None = None,
        keep: float | None = None,
        tokens: int | None = None,
        bytes: int | None = None,
        mode: str = "in view",
        **options: Any,
    ) -> None:
        if mode == "aware":
            warn('mode="aware"', 'mode="in view"')
            mode = "in view"
        if mode != "in view":
            raise ValueError(
                f"mode={mode!r}: only 'in view' (the whole prompt is compressed) can be run through the harness; "
                "`laconic bench` has the others."
            )
        self.methods = build(method, keep=keep, tokens=tokens, bytes=bytes)
        self.mode, self.figures = mode, HarnessTotals()
        if pretrained in MODELS:
            pretrained = str(model_path(pretrained))
            options.setdefault("dtype", torch.float32)  # as `laconic.load` does: the model is small, and stored in bfloat16
        super().__init__(pretrained, **options)
        self.engine = Engine(self.model, self.tokenizer)
        compress(self.model, *self.methods)  # refuses a model or a combination that does not fit

    def get_model_info(self) -> dict[str, Any]:
        """What the harness writes into its results, plus the methods and what they have stored so far."""
        own = {"version": laconic.__version__, "methods": [str(m) for m in self.methods], "mode": self.mode}
        return {**super().get_model_info(), "laconic": own | self.figures.as_dict()}

    def _request(self, **fields: Any) -> Request:
        return Request(methods=self.methods, **fields)

    def _note(self, session: Session, contexts: int) -> None:
        with session.hold():  # the prompt is complete: entries that are stored packed are packed now
            self.figures.add(session.stats, contexts)

    def _autocast(self) -> torch.autocast:
        dtype = self.mixed_precision_dtype
        return torch.autocast(self.device.type, dtype=dtype, enabled=dtype is not None)

    # -- generation ------------------------------------------------------------------------------------------------
    def _model_generate(self, context: torch.Tensor, max_length: int, stop: list[str], **options: Any) -> torch.Tensor:
        """New tokens after `context` [B, n], as the harness's own model gives them.

        The stop sequences are the harness's criteria, handed to `generate()`: they end a batch, or a set of beams, when all
        of it has met one, and the harness cuts the texts.
        """
        batch, length = context.shape
        inputs = {"input_ids": context, "attention_mask": options.pop("attention_mask", torch.ones_like(context))}
        sample = bool(options.pop("do_sample", False))
        temperature = options.pop("temperature", None)
        options["stopping_criteria"] = stop_sequences_criteria(self.tokenizer, stop, length, batch)
        # `max_length` yields to a checkpoint's own `max_new_tokens`, in transformers and so in the harness's model
        room = self.model.generation_config.max_new_tokens or max_length - length
        request = self._request(
            max_new_tokens=room, sample=sample, temperature=temperature if sample else None, options=options
        )
        with self._autocast():
            answers = self.engine.answer_batch(inputs, request, at_prompt=lambda session: self._note(session, batch))
        _repeat(answers[0].notes)
        padding = self.tokenizer.pad_token_id
        new = pad_sequence([torch.tensor(answer.ids) for answer in answers], batch_first=True, padding_value=padding)
        return torch.cat([context, new.to(context)], 1)

    # -- log-likelihood --------------------------------------------------------------------------------------------
    def loglikelihood_rolling(self, requests: Any, disable_tqdm: bool = False) -> list[float]:
        """Perplexity of whole texts: there is no context to compress, every token is scored.

        Raises:
            SessionError: a method that would remove something.
        """
        if all(method.neutral for method in self.methods):
            return super().loglikelihood_rolling(requests, disable_tqdm)
        raise SessionError(
            f"rolling log-likelihood (perplexity of whole texts) has no context that {' + '.join(map(str, self.methods))} "
            "could compress before the text is scored; leave out method= for such tasks."
        )

    def _loglikelihood_tokens(
        self, requests: Sequence[Continuation], disable_tqdm: bool = False, override_bs: int | None = None
    ) -> list[Score]:
        bar = tqdm(total=len(requests), disable=disable_tqdm or self.rank != 0, desc="Running loglikelihood requests")
        answers: list[Score] = []
        with bar:
            for context, group in groupby(map(self._fitted, requests), key=lambda request: request[1]):
                same = list(group)
                scores = self._scores(context, [continuation for _, _, continuation in same])
                for (text, _, _), score in zip(same, scores, strict=True):
                    if text is not None:
                        self.cache_hook.add_partial("loglikelihood", text, score)
                answers += scores
                bar.update(len(same))
        return answers

    def _fitted(self, request: Continuation) -> Continuation:
        """`request` with its context cut from the left to what the model has positions for, as the harness does."""
        text, context, continuation = request
        if not 0 < len(continuation) <= self.max_length:
            raise ValueError(f"a continuation of {len(continuation)} tokens cannot be scored; 1 to {self.max_length} can.")
        room = self.max_length + 1 - len(continuation)
        if len(context) > room:
            logger.warning("context of %d tokens cut from the left to %d (max_length)", len(context), room)
        return text, context[-room:], continuation

    def _scores(self, context: list[int], continuations: list[list[int]]) -> list[Score]:
        """Read `context`, compress it, and score each continuation that may follow it."""
        with self._autocast():
            found = self.engine.score(
                context,
                continuations,
                self._request(),
                at_prompt=lambda session: self._note(session, 1),
                dtype=self.softmax_dtype,
            )
        _repeat(found.notes)
        return [(float(score.log_likelihoods.sum()), score.greedy) for score in found.scores]


def _repeat(notes: Sequence[str]) -> None:
    """What a session warned about, in the harness's log."""
    for note in notes:
        logger.warning(note)


def build(spec: str | None, **budget: float | None) -> list[Method]:
    """Methods from text such as ``"NAME:key=value;key=value+NAME"``.

    Args:
        budget: keep=, tokens= or bytes=, for methods whose spec names none; see `create_methods`.

    Raises:
        ValueError: a budget without a method.
    """
    given = {name: value for name, value in budget.items() if value is not None}
    specs = [one.strip().replace(";", ",") for one in (spec or "").split("+") if one.strip()]
    if given and not specs:
        raise ValueError(f"{given} is a budget without a method; add method=NAME, one that `laconic methods` lists.")
    return create_methods(specs, **given)


def register() -> None:
    """Make the model known to the harness as ``laconic``."""
    if NAME not in model_registry:
        model_registry.register(NAME, target=f"laconic.bench.harness:{LaconicLM.__name__}")


def main(arguments: list[str] | None = None) -> None:
    """The harness's own command line, with our model registered.

    Args:
        arguments: as ``lm_eval`` takes them; default: those of this process.
    """
    from lm_eval.__main__ import cli_evaluate

    if arguments is not None:
        sys.argv = ["lm_eval", *arguments]
    cli_evaluate()


register()

if __name__ == "__main__":
    main()
