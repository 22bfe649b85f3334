"""Gates trained on a tiny model reach the share that was asked for, and choose better than chance."""

import pytest
import torch
from helpers.weight_tools import logits
from torch.nn.functional import cross_entropy
from transformers import LlamaConfig, LlamaForCausalLM

import laconic
from laconic.fit import Trainer
from laconic.methods.weights.vtrans.fit import VTransFit
from laconic.methods.weights.vtrans.method import kept, sliced
from laconic.methods.weights.vtrans.network import Gates
from laconic.weights.restored import restored

VOCAB, TOKENS = 16, 32


class Markov:
    """Text of the second order whose second half repeats the first."""

    def __init__(self, tokenizer=None):
        self.next = torch.randint(0, VOCAB, (VOCAB, VOCAB, 2), generator=torch.Generator().manual_seed(9))

    def batch(self, seed, step, size, tokens):
        drawn = torch.Generator().manual_seed(seed * 1_000_003 + step)
        rows = [torch.randint(0, VOCAB, (size,), generator=drawn) for _ in range(2)]
        for _ in range(tokens // 2 - 2):
            choice = torch.randint(0, 2, (size,), generator=drawn)
            rows.append(self.next[rows[-2], rows[-1], choice])
        half = torch.stack(rows, 1)
        ids = torch.cat([half, half], 1)
        return ids, ids.clone()


class ToyFit(VTransFit):
    def _source(self, tokenizer):
        return Markov()


def loss_of(model, seed=77):
    ids, _ = Markov().batch(seed, 0, 64, TOKENS)
    found = logits(model, ids)
    return float(cross_entropy(found[:, :-1].flatten(0, 1), ids[:, 1:].flatten()))


@pytest.fixture(scope="module")
def trained():
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCAB, hidden_size=64, intermediate_size=256, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=4, max_position_embeddings=64, bos_token_id=None, eos_token_id=None,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    optimizer, source = torch.optim.AdamW(model.parameters(), lr=3e-3), Markov()
    for step in range(250):
        ids, _ = source.batch(1, step, 16, TOKENS)
        optimizer.zero_grad()
        out = model(input_ids=ids, use_cache=False).logits
        cross_entropy(out[:, :-1].flatten(0, 1), ids[:, 1:].flatten()).backward()
        optimizer.step()
    return model.eval().requires_grad_(False)


@pytest.mark.slow
def test_gates_reach_the_share_and_beat_chance(trained):
    torch.manual_seed(0)
    before = loss_of(trained)
    fit = ToyFit(sparsity=0.5, steps=500, tokens=TOKENS, batch_size=16, log_every=50)
    lines = []
    artifact = Trainer(fit, trained, None, log=lines.append).run()
    assert abs(artifact.data["expected"] - 0.5) < 0.02, lines
    assert abs(artifact.data["hard"] - 0.5) < 0.05, lines  # how far gates have separated differs between processors
    method = laconic.VTrans()
    method.fitted = artifact
    with restored(trained):
        method.prepare(trained)
        facts = method.edit(trained)
        after = loss_of(trained)
    assert abs(facts["sparsity of layers"] - 0.5) < 0.02 and facts["width"] < 64
    chance = []
    for seed in range(3):
        torch.manual_seed(seed)
        random = Gates(fit.gates.sizes).requires_grad_(False)
        for mu in random.mu.values():
            mu.fill_(1)
        units = {
            name: torch.zeros_like(x).scatter_(-1, torch.rand(x.shape).argsort(-1)[..., : int(x.sum(-1).flatten()[0])], True)
            for name, x in kept(fit.gates.requires_grad_(False), 0.5).items()
        }
        with restored(trained):
            sliced(trained, random, units)
            chance.append(loss_of(trained))
    print(before, after, chance, artifact.data, facts)
    assert before < after < min(chance) - 0.1


def test_the_multipliers_fall_while_too_little_goes(llama):
    fit = ToyFit(sparsity=0.5, steps=3, tokens=8, batch_size=1)
    fit._source = lambda tokenizer: Markov()
    Trainer(fit, llama, None).run()
    assert fit.gates.multipliers[0] < 0


def test_settings_out_of_range():
    with pytest.raises(ValueError, match="below 1"):
        VTransFit(sparsity=1.0)
    with pytest.raises(ValueError, match="must be positive"):
        VTransFit(sparsity=0.0)
    assert VTransFit(logvar=-9.0).settings()["logvar"] == -9
