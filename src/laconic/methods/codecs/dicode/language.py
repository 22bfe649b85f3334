"""A GPT-2 that writes deep tokens one by one after a text, and says of each a mixture of Gaussians."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import DynamicCache, GPT2Model

from laconic.codec.small_gpt2 import small_gpt2
from laconic.methods.codecs.dicode.mixture import Mixture


class Language(nn.Module):
    """Text ids [B, text], then for every frame <img> and its q tokens. The hidden state at <img> predicts the first token of
    a frame, that at a token the next one.

    Args:
        words: of the vocabulary. Number 0 stands for no word.
        frames, tokens, numbers: frames at most, tokens of a frame, numbers of a token, D.
        components: of the mixture, M.
    """

    def __init__(
        self,
        words: int,
        text: int,
        frames: int,
        tokens: int,
        numbers: int,
        components: int,
        width: int,
        depth: int,
        heads: int,
    ):
        super().__init__()
        self.text, self.frames, self.tokens, self.components = text, frames, tokens, components
        self.image = words + 1
        self.gpt = GPT2Model(small_gpt2(words + 2, text + frames * (tokens + 1), width, depth, heads))
        self.read = nn.Sequential(nn.Linear(numbers, width), nn.GELU(), nn.Linear(width, width))
        self.frame_place = nn.Parameter(0.02 * torch.randn(frames, 1, width))
        self.token_place = nn.Parameter(0.02 * torch.randn(tokens, width))
        outputs = 2 * components * numbers + components
        self.write = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, outputs))

    def forward(self, ids: Tensor, tokens: Tensor) -> Mixture:
        """What is said of each of the tokens [B, F, q, D], given the text and all tokens before it."""
        images = self._words(torch.full_like(tokens[..., :1, 0], self.image, dtype=torch.long))
        frames = torch.cat([images, self._tokens(tokens)], 2)
        hidden = self._run(torch.cat([self._words(ids), frames.flatten(1, 2)], 1))
        after = hidden[:, self.text :].unflatten(1, (-1, self.tokens + 1))
        return Mixture.of(self.write(after[:, :, :-1]), self.components)

    @torch.no_grad()
    def sample(self, ids: Tensor, frames: int, var_scale: float = 0.01, generator: torch.Generator | None = None) -> Tensor:
        """Tokens [B, frames, q, D], each drawn from what is said of it and read again before the next.

        Args:
            var_scale: factor on the variances.
        """
        cache, made = DynamicCache(), []
        image = self._words(torch.full_like(ids[:, :1], self.image))
        new = torch.cat([self._words(ids), image], 1)
        for number in range(frames * self.tokens):
            hidden = self._run(new, cache)
            said = Mixture.of(self.write(hidden[:, -1]), self.components)
            made.append(said.sample(var_scale, generator))
            frame, place = divmod(number, self.tokens)
            new = self.read(made[-1])[:, None] + self.frame_place[frame] + self.token_place[place]
            if place == self.tokens - 1:
                new = torch.cat([new, image], 1)
        return torch.stack(made, 1).unflatten(1, (frames, self.tokens))

    def _words(self, ids: Tensor) -> Tensor:
        found: Tensor = self.gpt.wte(ids)
        return found

    def _tokens(self, tokens: Tensor) -> Tensor:
        found: Tensor = self.read(tokens) + self.frame_place[: tokens.shape[1]] + self.token_place
        return found

    def _run(self, new: Tensor, cache: DynamicCache | None = None) -> Tensor:
        """Hidden states of the embeddings `new`, which follow what is in the cache."""
        hidden: Tensor = self.gpt(inputs_embeds=new, past_key_values=cache, use_cache=cache is not None).last_hidden_state
        return hidden
