"""Attention computed ahead equals what the layer then attends to, in every layout, before layer 0 and after cuts."""

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import ClassVar

import pytest
import torch
from helpers.vision_tools import inputs
from helpers.vision_zoo import CASES
from torch import nn

from laconic import compress
from laconic.errors import UnsupportedModelError
from laconic.families.base import GENERIC
from laconic.method import CATALOGUE
from laconic.stream.assemble import assemble
from laconic.stream.contract import TokenMethod
from laconic.stream.lookahead import attention_of, last_rows


@dataclass(kw_only=True)
class Looks(TokenMethod):
    """Records what the layers `where` will attend to, and drops every third visual token before layer 1 if asked."""

    where: tuple = (0,)
    drop: bool = False
    seen: dict = field(default_factory=dict)

    name: ClassVar[str] = "looks"

    def cuts(self, depth):
        return sorted({*self.where, *([1] if self.drop else [])})

    def cut(self, stream):
        if stream.layer in self.where:
            n = stream.hidden.shape[1]
            rows = torch.arange(n).expand(len(stream.hidden), -1)
            self.seen[stream.layer] = attention_of(stream, rows), attention_of(stream, last_rows(stream))
        if self.drop and stream.layer == 1:
            kept = [stream.images(b)[::3] for b in range(len(stream.hidden))]
            return assemble(stream, kept, positions="renumber")
        return None


CATALOGUE.pop("looks", None)


def true_rows(q, k, valid):
    """[B, H, n, n] of one pass, loops over batch rows and heads."""
    (batch, heads, n, d), group = q.shape, q.shape[1] // k.shape[1]
    out = torch.zeros(batch, heads, n, n)
    for b in range(batch):
        for h in range(heads):
            for i in range(n):
                cols = [j for j in range(i + 1) if valid is None or valid[b, j]]
                if cols:
                    out[b, h, i, cols] = (k[b, h // group, cols] @ q[b, h, i] * d**-0.5).softmax(0)
    return out


@pytest.mark.parametrize("name", CASES)
def test_equals_true_attention_in_every_family(name, passes):
    """Must show 4: the recomputed row is the layer's true attention row."""
    model, case = CASES[name].build(), CASES[name]
    given = case.inputs([[case.image(0)], [case.image(1)]])
    given["input_ids"][1, 0], given["attention_mask"][1, 0] = 0, 0
    last = len(GENERIC.stack(model).layers) - 1
    method = Looks(where=(0, last), keep=0.5)
    with compress(model, method):
        model(**given)
    for layer in (0, last):
        ((q, k),) = passes[layer]
        expected = true_rows(q, k, given["attention_mask"].bool())
        every, row = method.seen[layer]
        torch.testing.assert_close(every, expected, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(row, expected[:, :, -1:], atol=1e-5, rtol=1e-4)


def test_after_a_cut_that_renumbers_positions(vlm, passes):
    method = Looks(where=(3,), drop=True, keep=0.5)
    with compress(vlm, method):
        vlm(**inputs([(3, 9)]))
    ((q, k),) = passes[3]
    assert q.shape[2] == 12 + 48
    torch.testing.assert_close(method.seen[3][0], true_rows(q, k, None), atol=1e-5, rtol=1e-4)


def test_a_row_of_minus_one_pays_nothing(vlm):
    class One(Looks):
        def cut(self, stream):
            self.seen[0] = attention_of(stream, torch.tensor([[-1, 20]]))

    method = One(keep=0.5)
    with compress(vlm, method):
        vlm(**inputs([(3, 9)]))
    assert method.seen[0][:, :, 0].abs().max() == 0 and torch.allclose(method.seen[0][:, :, 1].sum(-1), torch.ones(1))


def test_other_layouts_are_refused():
    norm = nn.LayerNorm(8)
    plain = SimpleNamespace(q_proj=nn.Linear(8, 8), k_proj=nn.Linear(8, 8), head_dim=4, scaling=0.5)
    blocks = [
        SimpleNamespace(self_attn=SimpleNamespace(qkv_proj=1), input_layernorm=norm),
        SimpleNamespace(self_attn=plain),
        SimpleNamespace(self_attn=SimpleNamespace(**vars(plain), q_norm=norm), input_layernorm=norm),
        SimpleNamespace(self_attn=SimpleNamespace(**vars(plain), attn_logit_softcapping=50.0), input_layernorm=norm),
    ]
    for block in blocks:
        with pytest.raises(UnsupportedModelError, match="computed ahead"):
            attention_of(SimpleNamespace(block=block), torch.zeros(1, 1, dtype=torch.long))
