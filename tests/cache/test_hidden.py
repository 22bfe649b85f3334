"""Hidden states in an observation: what a layer reads, for as long as it runs."""

from typing import ClassVar

import pytest
import torch

import laconic
from laconic import UnsupportedModelError
from laconic.cache.contract import CacheMethod
from laconic.cache.hidden import HiddenSeam
from laconic.cache.seam import EntriesSeam
from laconic.families import family_of

N = 19


class Reads(CacheMethod):
    """Keeps the newest entries and remembers what every layer read."""

    name = "reads"
    seams: ClassVar = (EntriesSeam, HiddenSeam)
    evicts_while_decoding = True

    def __init__(self, **budget):
        super().__init__(**budget)
        self.read = []

    def score(self, obs):
        self.read.append((obs.decoder_layer, obs.hidden))
        return obs.index.float()


def test_it_is_what_the_layers_read(llama, prompt):
    ids, method = prompt(2, N), Reads(keep=0.5)
    want = llama(ids, output_hidden_states=True).hidden_states
    with laconic.compress(llama, method) as session:
        llama(ids)
        assert session.cache.hidden is None
    for layer, hidden in method.read:
        torch.testing.assert_close(hidden.residual, want[layer])
        torch.testing.assert_close(hidden.normalised, llama.model.layers[layer].input_layernorm(want[layer]))
    assert [layer for layer, _ in method.read] == [0, 1, 2, 3]


def test_it_is_there_while_decoding_and_gone_after_the_session(llama, prompt):
    method = Reads(keep=0.5)
    hooks = [len(m._forward_pre_hooks) + len(m._forward_hooks) for m in llama.modules()]
    with laconic.compress(llama, method) as session:
        llama.generate(prompt(1, N), max_new_tokens=3, do_sample=False, pad_token_id=0)
    assert {hidden.residual.shape[1] for _, hidden in method.read} == {N, 1}
    assert session.cache.hidden is None
    assert hooks == [len(m._forward_pre_hooks) + len(m._forward_hooks) for m in llama.modules()]


def test_other_methods_get_none(llama, prompt):
    class Without(Reads):
        seams: ClassVar = (EntriesSeam,)

    method = Without(keep=0.5)
    with laconic.compress(llama, method):
        llama(prompt(1, N))
    assert {hidden for _, hidden in method.read} == {None}


def test_models_without_it_are_refused(llama):
    family = family_of(llama)
    with pytest.raises(UnsupportedModelError, match="no `self_attn`"):
        family.attention(torch.nn.Linear(2, 2))
    layer = torch.nn.Module()
    layer.self_attn = torch.nn.Module()
    with pytest.raises(UnsupportedModelError, match="no `o_proj`"):
        family.output_gram(layer)


def test_the_gram_gives_the_norm_of_a_head_s_contribution(llama):
    layer, v = llama.model.layers[1], torch.randn(4, 8)
    gram = family_of(llama).output_gram(layer)
    for head in range(4):
        want = layer.self_attn.o_proj(torch.nn.functional.pad(v[head], (8 * head, 8 * (3 - head)))).norm()
        torch.testing.assert_close((v[head] @ gram[head] @ v[head]).sqrt(), want)
