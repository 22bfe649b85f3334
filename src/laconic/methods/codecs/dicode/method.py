"""DiCoDe: a clip as the deep tokens of its two ends (arXiv 2412.04446)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from laconic import checks
from laconic.artifact import Artifact
from laconic.codec.contract import CodecMethod
from laconic.codec.generator import GeneratorMethod
from laconic.codec.images import check_image, pixels, psnr, shown
from laconic.codec.vocabulary import word_ids
from laconic.errors import ArtifactError, BudgetError, CodesError, MediaError
from laconic.media.film import Film
from laconic.media.frames import load_frames
from laconic.method import register
from laconic.methods.codecs.dicode.network import DiCoDeNet, Sizes, joined

LONGEST = 256
"""Clips of a film at most."""


@register(
    "dicode",
    site="codecs",
    modality="video",
    mechanism="deep tokens of shared borders",
    source="arXiv 2412.04446",
    query_aware=False,
    training="trained",
    inferred="the small tokenizer: convolutions for CLIP, a transformer on pixels for the video diffusion model; how the "
    "language model is optimised",
)
@dataclass(kw_only=True)
class DiCoDe(CodecMethod, GeneratorMethod):
    """Video tokenizer that keeps a few vectors of every border between clips; a diffusion model invents what is between.

    A film of n clips of T frames has ``n (T - 1) + 1`` frames and n + 1 borders; neighbours share theirs. A small GPT-2
    writes such vectors after a text, each drawn from a mixture of Gaussians.

    Args:
        artifact: what `laconic fit dicode` wrote: a file, a shipped name, or a Hub id.
        steps, eta: of DDIM; `eta` is how much new noise each step brings.
        guidance, rescale: how much more the tokens count than without them, 1 for none; the share of the result whose
            spread is brought back.
        seed: of the noise.
        frames: how many frames of a file are read, evenly spaced; None: all.
        borders: how often a border between two clips is decoded: once, or twice as in the release.
        clips, var_scale: of `generate`: how many clips, and the factor on the variances that are sampled from.
    """

    steps: int = 50
    eta: float = 1.0
    guidance: float = 7.5
    rescale: float = 0.7
    seed: int = 0
    frames: int | None = None
    borders: int = 1
    clips: int = 1
    var_scale: float = 0.01

    instead: ClassVar[str] = (
        "is a codec of films: it changes no model. Use encode(film), decode(codes) and generate(prompt) of the method, or "
        "`laconic encode FILE -o FILE`, `laconic decode` and `laconic generate`."
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        for parameter, least in (("steps", 1), ("seed", 0), ("clips", 1)):
            checks.whole(self, parameter, least)
        if self.frames is not None:
            checks.whole(self, "frames", 1)
        checks.between(self, "eta")
        checks.between(self, "rescale")
        checks.at_least(self, "guidance", 0)
        checks.at_least(self, "var_scale", 0)
        checks.one_of(self, "borders", 1, 2)

    def build(self, artifact: Artifact) -> DiCoDeNet:
        network = DiCoDeNet(Sizes.of(artifact.data["sizes"]))
        network.words = tuple(artifact.data["words"])  # type: ignore[assignment]
        return network

    @property
    def most(self) -> int:
        return int(self.network.sizes.tokens) * (LONGEST + 1)

    @property
    def alphabet(self) -> int | None:
        return None

    @property
    def size(self) -> tuple[int, int]:
        return self.network.sizes.size, self.network.sizes.size

    def open(self, path: str | Path) -> Film:
        most = LONGEST * (self.network.sizes.frames - 1) + 2  # one more than can be read, so that it is refused
        return Film(tuple(frame.image for frame in load_frames(path, self.frames or most)))

    def quality(self, drawn: Film, wanted: Film) -> float:
        """Mean PSNR of the frames that both have, in dB."""
        both = min(len(drawn), len(wanted))
        return float(psnr(pixels(drawn.frames[:both]), pixels(wanted.frames[:both])).mean())

    def count(self, tokens: int | None = None, most: int | None = None) -> int:
        """As in every codec, in whole borders, two at least: a budget is rounded down, a number of tokens must be one.

        Raises:
            BudgetError: it is not, or there are not so many.
        """
        each = int(self.network.sizes.tokens)
        found = super().count(tokens, most)
        whole = found // each * each
        if whole < 2 * each or (tokens is not None and whole != tokens):
            raise BudgetError(
                f"{self.name}: {found} tokens: it keeps whole borders of {each} tokens, two at least; ask for {2 * each}, "
                f"{3 * each} and so on."
            )
        return whole

    def read(self, media: Film) -> tuple[Tensor, tuple[int, ...]]:
        if not isinstance(media, Film):
            raise MediaError(f"{self.name} reads a laconic.media.film.Film, not {type(media).__name__}.")
        clip = int(self.network.sizes.frames)
        if len(media) < clip or (len(media) - 1) % (clip - 1) or len(media) > LONGEST * (clip - 1) + 1:
            raise MediaError(
                f"{self.name}: the film has {len(media)} frames and this codec reads clips of {clip} that share borders: "
                f"{clip}, {2 * clip - 1}, {3 * clip - 2} frames and so on, {LONGEST} clips at most; choose how many "
                f"of a file are read with {self.name}:frames={2 * clip - 1}."
            )
        ends = pixels([check_image(self.name, media.frames[at], self.size) for at in range(0, len(media), clip - 1)])
        return self.network.tokens(ends).flatten(0, 1), (len(media), *media.size[::-1], 3)

    def draw(self, values: Tensor, shape: tuple[int, ...]) -> Film:
        sizes = self.network.sizes
        if len(values) % sizes.tokens or len(values) < 2 * sizes.tokens or values.shape[1] != sizes.numbers:
            raise CodesError(
                f"{self.name}: {len(values)} tokens of {values.shape[1]} numbers are no borders of a film, which have "
                f"{sizes.tokens} of {sizes.numbers} each and are two at least; decode {2 * sizes.tokens}, "
                f"{3 * sizes.tokens} and so on."
            )
        return self._film(values.float().unflatten(0, (-1, sizes.tokens)))

    @torch.no_grad()
    def generate(self, prompt: str, seed: int = 0) -> Film:
        """A film of `clips` clips that the language model writes after a text such as "red circle left".

        Raises:
            ArtifactError: the artifact has no language model. ValueError: more clips than it was trained for.
        """
        net: Any = self.network
        if net.language is None:
            raise ArtifactError(
                f"{self.name}: this artifact has no language model; train one with "
                f"`laconic fit {self.name} --set start=FILE`."
            )
        if self.clips >= net.sizes.borders:
            raise ValueError(f"{self.name}: clips={self.clips}: this language model writes {net.sizes.borders - 1} at most.")
        ids, drawn = torch.tensor([word_ids(prompt, net.words, net.sizes.text)]), torch.Generator().manual_seed(seed)
        return self._film(net.language.sample(ids, self.clips + 1, self.var_scale, drawn)[0])

    def _film(self, borders: Tensor) -> Film:
        """Of the tokens [F, q, d] of border frames, each of which both of its clips see."""
        net, drawn = self.network, torch.Generator().manual_seed(self.seed)
        pairs = torch.stack([borders[:-1], borders[1:]], 1)
        made = net.decode(pairs, net.noise(len(pairs), drawn), self.steps, self.eta, self.guidance, self.rescale, drawn)
        return Film(tuple(shown(joined(made, self.borders))))
