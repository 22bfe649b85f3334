"""Optional hooks of weight methods."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from laconic.step import Step


@runtime_checkable
class PerPrompt(Protocol):
    """A weight method whose weights depend on the prompt. Nothing is called at the neutral budget.

    Both functions run right before the decoder does, and may change modules, but must not replace decoder layers: other
    seams have hooks on them. Replace their children instead, and have the context of `apply` restore them.
    """

    def before_prompt(self, step: Step) -> None:
        """The first pass of a new prompt is about to run: go back to the weights for any prompt.

        `step` follows the stream: while a layer runs, ``step.valid`` [B, n] says which of its n rows are real (None: all),
        also after a cut. The last `step.pseudo` rows of a layer's input are not rows of the prompt.
        """
        ...

    def before_decoding(self, step: Step) -> None:
        """The prompt has run, and its first token is about to be decoded: weights for this prompt may go in, until
        `before_prompt` is called again. Later turns on the same cache run with them, too."""
        ...
