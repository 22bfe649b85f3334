"""A method of your own for the cache: keep entries with long values that the end of the prompt looks at.

Run: python examples/loud_values/loud_values.py
Or install this folder (pip install ./examples/loud_values), and then: laconic run --method loud_values --keep 0.25 ...
"""

from dataclasses import dataclass

import torch

import laconic
from laconic.cache.observe import Observation


@laconic.register(
    "loud_values",
    site="cache",
    mechanism="eviction",
    source="the worked example of the documentation",
    query_aware=True,
)
@dataclass(kw_only=True)
class LoudValues(laconic.CacheMethod):
    """Keep entries whose attention times the norm of their value is large.

    Args:
        window: last queries that vote; they stay, up to half the budget.
    """

    window: int = 16

    def forced(self) -> tuple[int, int]:
        return 0, self.window  # no sinks, the last `window` tokens

    def score(self, obs: Observation) -> torch.Tensor:
        attention = obs.window(self.window).mean((2, 3))  # [B, Hkv, G, w, n] -> [B, Hkv, n]
        return attention * torch.linalg.vector_norm(obs.values, dim=-1)


def main() -> None:
    model, tokenizer = laconic.load("testbed/lm")
    inputs = tokenizer("The code for falcon is 4815263. The code for otter is 1234567.", return_tensors="pt")
    with laconic.compress(model, LoudValues(keep=0.5)) as session:
        model.generate(**inputs, max_new_tokens=4)
    print(f"kept {session.stats.achieved:.0%}; in layer 0, head 0 the tokens {session.kept(layer=0, head=0).tolist()}")


if __name__ == "__main__":
    main()
