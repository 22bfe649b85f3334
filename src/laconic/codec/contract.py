"""The contract of codecs: a medium becomes a few tokens, which decode on their own."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from laconic.codec.codes import Codes
from laconic.codec.images import pixels, psnr
from laconic.codec.standalone import StandaloneMethod
from laconic.errors import BudgetError, CodesError, MediaError
from laconic.media.images import load_image


@dataclass(kw_only=True)
class CodecMethod(StandaloneMethod):
    """Turns a medium into `Codes` and back. The budget is that of its tokens: `tokens`, `bytes`, or `keep`, a share of the
    most that there are; without one all are kept.

    A subclass gives `build`, `read` and `draw`.

    Raises:
        BudgetError: more tokens than the codec has, or bytes for less than one.
    """

    preferred: ClassVar[bool] = False
    """Whether `laconic encode` takes this codec when none is named."""
    instead: ClassVar[str] = (
        "is a codec: it makes tokens of a medium by itself and changes no model. Use encode(image) and decode(codes) of the "
        "method, or `laconic encode IMAGE -o FILE` and `laconic decode FILE -o IMAGE`."
    )

    @property
    def most(self) -> int:
        """Tokens of a medium at most. `alphabet`: how many codes there are, None where tokens are vectors."""
        raise NotImplementedError(f"{type(self).__name__} must define most.")

    @property
    def alphabet(self) -> int | None:
        raise NotImplementedError(f"{type(self).__name__} must define alphabet.")

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the images that it reads; not of a codec for other media."""
        raise MediaError(f"{self.name} reads no images, so nothing can be resized for it.")

    def read(self, media: Any) -> tuple[Tensor, tuple[int, ...]]:
        """All tokens of a medium, [most] or [most, d], and its shape.

        Raises:
            MediaError: a medium that the codec cannot take.
        """
        raise NotImplementedError(f"{type(self).__name__} must define read().")

    def draw(self, values: Tensor, shape: tuple[int, ...]) -> Any:
        """The medium of this shape, from any number of first tokens."""
        raise NotImplementedError(f"{type(self).__name__} must define draw().")

    def open(self, path: str | Path) -> Any:
        """The medium in a file.

        Raises:
            MediaError: it cannot be read.
        """
        return load_image(path)

    def quality(self, drawn: Any, wanted: Any) -> float:
        """How near a decoded medium is to the one that was encoded, in dB."""
        return float(psnr(pixels([drawn]), pixels([wanted])))

    def count(self, tokens: int | None = None, most: int | None = None) -> int:
        """How many of `most` tokens are kept: `tokens`, or what the budget says. None: of the most that there may be.

        Raises:
            BudgetError: there are not so many, or not one fits.
        """
        most, budget = self.most if most is None else most, self.budget
        if tokens is None and budget.bytes is not None:
            tokens = min(most, int(8 * budget.bytes / (self._one().bits)))
            if not tokens:
                raise BudgetError(f"{self.name}: bytes={budget.bytes}: one token takes {self._one().bytes} bytes.")
        if tokens is None:
            tokens = budget.tokens if budget.tokens is not None else max(1, math.floor((budget.keep or 1) * most + 1e-9))
        if not 1 <= tokens <= most:
            raise BudgetError(f"{self.name}: tokens={tokens}: there are {most}; ask for 1 to {most}.")
        return tokens

    def _one(self) -> Codes:
        """One token, whichever."""
        alphabet = self.alphabet
        values = torch.zeros(1, dtype=torch.int64) if alphabet else torch.zeros(1, self.network.width)
        return Codes(self.name, self.digest, (), values, alphabet)

    @torch.no_grad()
    def encode(self, media: Any, tokens: int | None = None) -> Codes:
        """The first `tokens` tokens of a medium; None: as many as the budget says.

        Raises:
            BudgetError: see `count`. MediaError: a medium that the codec cannot take.
        """
        values, shape = self.read(media)
        kept = self.count(tokens, len(values))
        return Codes(self.name, self.digest, shape, values[:kept].cpu(), self.alphabet)

    @torch.no_grad()
    def decode(self, codes: Codes) -> Any:
        """The medium that `codes` stand for.

        Raises:
            CodesError: they belong to another codec, to other weights, or are more than there are.
        """
        if codes.codec != self.name:
            raise CodesError(f"these codes were made by {codes.codec}, not by {self.name}; decode them with {codes.codec}.")
        if codes.artifact != self.digest:
            raise CodesError(
                f"these codes of {self.name} were made with other weights; pass the artifact that encoded them as artifact=."
            )
        if len(codes) > self.most or codes.alphabet != self.alphabet:
            raise CodesError(
                f"{len(codes)} tokens from {codes.alphabet} codes: {self.name} has at most {self.most} from {self.alphabet}."
            )
        return self.draw(codes.values, codes.shape)
