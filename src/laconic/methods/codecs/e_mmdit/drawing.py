"""E-MMDiT on pixels and a few words: what replaces the autoencoder and the language model of the release."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from laconic.codec.flow import flow_loss, guided, sampled
from laconic.codec.vocabulary import word_ids
from laconic.methods.codecs.e_mmdit.network import EMMDiTNet, Sizes


class Drawing(nn.Module):
    """Images [B, 3, size, size] in -1 .. 1 as patches of pixels, texts as rows of a learned table.

    Args:
        words: the vocabulary. Number 0 of the table stands for no word.
        patch: pixels of a latent's side, so that ``sizes.channels == 3 * patch^2``.
    """

    def __init__(self, sizes: Sizes, words: Sequence[str], patch: int):
        super().__init__()
        self.sizes, self.words, self.patch = sizes, tuple(words), patch
        self.table = nn.Embedding(len(words) + 1, sizes.text_width)
        self.net = EMMDiTNet(sizes)

    def ids(self, prompt: str) -> list[int]:
        """Numbers of the words, padded with 0.

        Raises:
            PromptError: a word that is not in the vocabulary, or too many.
        """
        return word_ids(prompt, self.words, self.sizes.text)

    def latent(self, images: Tensor) -> Tensor:
        """[B, 3 * patch^2, side, side]."""
        return F.pixel_unshuffle(images, self.patch)

    def loss(self, images: Tensor, ids: Tensor) -> Tensor:
        """The flow's loss for images and their texts [B, text]."""
        text = self.table(ids)
        return flow_loss(lambda x, t: self.net(x, t, text), self.latent(images))

    @torch.no_grad()
    def draw(self, ids: Tensor, noise: Tensor, steps: int, guidance: float) -> Tensor:
        """Images for texts [B, text] from noise [B, 3 * patch^2, side, side]."""
        velocity = guided(self.net, self.table(ids), self.table(torch.zeros_like(ids[:1])), guidance)
        return F.pixel_shuffle(sampled(velocity, noise, steps), self.patch)
