"""How predictable codes are: a small GPT-2 learns to say the next one, and is asked about images that it has not seen."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import GPT2LMHeadModel

from laconic.codec.small_gpt2 import small_gpt2
from laconic.fit.schedules import warmup_cosine


def next_code_perplexity(
    codes: Tensor, held: Tensor, alphabet: int, steps: int = 400, width: int = 64, batch_size: int = 64, seed: int = 0
) -> float:
    """The exponential of the mean nats per code of `held` [M, K] under a language model trained on `codes` [N, K].

    Args:
        alphabet: how many codes there are, the worst that can be reached by guessing evenly.
        steps: of its training, each on `batch_size` rows drawn anew.
    """
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(seed)
        model = GPT2LMHeadModel(small_gpt2(alphabet + 1, codes.shape[1] + 1, width, depth=2, heads=2))
        optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.01)
        for step in range(steps):
            optimizer.param_groups[0]["lr"] = 3e-3 * warmup_cosine(step, steps, 0.05)
            optimizer.zero_grad()
            _nats(model, codes[torch.randint(len(codes), (batch_size,))], alphabet).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        with torch.no_grad():
            return float(_nats(model.eval(), held, alphabet).exp())


def _nats(model: GPT2LMHeadModel, codes: Tensor, start: int) -> Tensor:
    """Mean over all codes [B, K]; each row begins with `start`."""
    ids = F.pad(codes, (1, 0), value=start)[:, :-1]
    return F.cross_entropy(model(ids, use_cache=False).logits.flatten(0, 1), codes.flatten())
