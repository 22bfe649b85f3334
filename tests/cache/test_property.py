"""Random sequences of cache operations against a slow cache: one Python list of entries for every head."""

import math
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig

from laconic.cache.cache import CompressedCache
from laconic.cache.layer import selected
from laconic.cache.parts.base import DensePart
from laconic.cache.parts.ragged import RaggedPart
from laconic.ops.attend import merge
from laconic.ops.select import from_mask

HEADS, KV, D, SCALE = 4, 2, 4, 0.7
seeds = st.integers(0, 2**31)


@dataclass(frozen=True)
class Entry:
    """One real entry of one head."""

    key: torch.Tensor
    value: torch.Tensor
    token: int
    mass: float = 0.0


def slow_attention(q: torch.Tensor, entries: list[Entry]) -> tuple[torch.Tensor, float]:
    """One query [D] over a list of entries."""
    if not entries:
        return torch.zeros(D), -math.inf
    logits = [SCALE * float(q.double() @ e.key.double()) for e in entries]
    top = max(logits)
    weights = [math.exp(x - top) for x in logits]
    total = sum(weights)
    out = sum(w / total * e.value.double() for w, e in zip(weights, entries, strict=True))
    return out.float(), top + math.log(total)


class CacheMachine(RuleBasedStateMachine):
    """A layer under test beside `heads[b][h]`, the list of real entries, and `rows[b][h]`, the stored rows of every part."""

    @initialize(batch=st.integers(1, 3), n=st.integers(1, 6), seed=seeds, padded=st.booleans())
    def start(self, batch: int, n: int, seed: int, padded: bool) -> None:
        config = LlamaConfig(hidden_size=16, num_attention_heads=HEADS, num_key_value_heads=KV, num_hidden_layers=1)
        self.layer = CompressedCache(config).layers[0]
        self.layer.is_initialized, self.layer.device = True, torch.device("cpu")
        self.heads: list[list[list[Entry]]] = [[[] for _ in range(KV)] for _ in range(batch)]
        self.rows: list[list[list[int]]] = []  # per part, per batch row, per head
        self.token = 0
        self.indexed = False
        self.ever_evicted = False
        self.append_many(n, seed, padded)

    @property
    def batch(self) -> int:
        return len(self.heads)

    def fresh(self, n: int, seed: int, padded: bool) -> tuple[torch.Tensor, torch.Tensor, dict[str, torch.Tensor]]:
        """n new entries, in the layer's form and in the slow one."""
        generator = torch.Generator().manual_seed(seed)
        keys, values = (torch.randn(self.batch, KV, n, D, generator=generator) for _ in range(2))
        valid = torch.ones(self.batch, n, dtype=torch.bool)
        if padded and n > 1:
            valid = torch.arange(n) >= torch.randint(0, n, (self.batch, 1), generator=generator)
        columns = {}
        if self.indexed:
            token = torch.arange(self.token, self.token + n, dtype=torch.int32)
            columns["index"] = token.expand(self.batch, KV, n)
        if padded:
            columns["valid"] = valid[:, None].expand(self.batch, KV, n)
        for b in range(self.batch):
            for h in range(KV):
                real = [j for j in range(n) if valid[b, j]]
                self.heads[b][h] += [Entry(keys[b, h, j], values[b, h, j], self.token + j) for j in real]
        self.token += n
        return keys, values, columns

    # -- operations ------------------------------------------------------------------------------------------------
    @rule(seed=seeds)
    def append_one(self, seed: int) -> None:
        self.append_many(1, seed, False)

    @rule(n=st.integers(1, 40), seed=seeds, padded=st.booleans())
    def append_many(self, n: int, seed: int, padded: bool) -> None:
        self.layer.append(*self.fresh(n, seed, padded))
        if not self.rows:
            self.rows = [[[0] * KV for _ in range(self.batch)]]
        self.rows[-1] = [[count + n for count in row] for row in self.rows[-1]]
        self.layer.seen = self.token

    @precondition(lambda self: self.indexed and len(self.rows) < 3)
    @rule(n=st.integers(1, 5), seed=seeds, padded=st.booleans())
    def begin_a_part(self, n: int, seed: int, padded: bool) -> None:
        self.layer.parts.append(DensePart(*self.fresh(n, seed, padded)))
        self.rows.append([[n] * KV for _ in range(self.batch)])

    @rule(n=st.integers(1, 5), seed=seeds, padded=st.booleans(), ragged=st.booleans(), share=st.floats(0.1, 1))
    def evict(self, n: int, seed: int, padded: bool, ragged: bool, share: float) -> None:
        """New entries come in and a random choice of old and new ones stays, as after a pass of the prompt."""
        keys, values, columns = self.layer.everything(*self.fresh(n, seed, padded))
        total = keys.shape[2]
        columns.setdefault("index", torch.arange(total, dtype=torch.int32).expand(keys.shape[:3]))
        valid = columns.get("valid", torch.ones(keys.shape[:3], dtype=torch.bool))
        draw = torch.rand(keys.shape[:3], generator=torch.Generator().manual_seed(seed)).masked_fill(~valid, 2)
        mask = (draw < share) | (draw == draw.amin(-1, keepdim=True))
        self.keep(keys, values, columns, mask & valid, ragged)

    @rule(n=st.integers(1, 5), seed=seeds, count=st.integers(1, 4), ragged=st.booleans())
    def evict_evenly(self, n: int, seed: int, count: int, ragged: bool) -> None:
        """The same number stays in every head."""
        keys, values, columns = self.layer.everything(*self.fresh(n, seed, False))
        columns.setdefault("index", torch.arange(keys.shape[2], dtype=torch.int32).expand(keys.shape[:3]))
        valid = columns.get("valid", torch.ones(keys.shape[:3], dtype=torch.bool))
        draw = torch.rand(keys.shape[:3], generator=torch.Generator().manual_seed(seed)).masked_fill(~valid, 2)
        count = min(count, int(valid.sum(-1).min()))
        mask = torch.zeros_like(valid).scatter_(2, draw.argsort(-1)[..., :count], True)
        self.keep(keys, values, columns, mask, ragged)

    def keep(self, keys, values, columns, mask: torch.Tensor, ragged: bool) -> None:
        selection = from_mask(mask)
        self.layer.store([selected(keys, values, columns, selection, ragged)])
        for b in range(self.batch):
            for h in range(KV):
                tokens = set(columns["index"][b, h][mask[b, h]].tolist())
                self.heads[b][h] = [e for e in self.heads[b][h] if e.token in tokens]
        kept = mask.sum(-1)
        rows = kept if ragged else kept.amax().expand_as(kept)
        self.rows, self.indexed, self.ever_evicted = [rows.tolist()], True, True

    @precondition(lambda self: self.indexed and isinstance(self.layer.parts[-1], DensePart) and len(self.rows) == 1)
    @rule(seed=seeds, everywhere=st.booleans())
    def replace_one(self, seed: int, everywhere: bool) -> None:
        """One entry per head goes, in all rows or in some, as while decoding."""
        part = self.layer.parts[-1]
        if min(len(head) for row in self.heads for head in row) < 2:
            return
        generator = torch.Generator().manual_seed(seed)
        valid = part.columns.get("valid", torch.ones(self.batch, KV, part.length, dtype=torch.bool))
        slot = torch.rand(valid.shape, generator=generator).masked_fill(~valid, -1).argmax(-1)
        evict = torch.rand(self.batch, 1, generator=generator).expand(-1, KV) < (1 if everywhere else 0.5)
        tokens = part.columns["index"].gather(2, slot[..., None])[..., 0]
        part.replace(slot, evict)
        for b in range(self.batch):
            for h in range(KV):
                if evict[b, h]:
                    self.heads[b][h] = [e for e in self.heads[b][h] if e.token != tokens[b, h]]
        n = self.rows[0][0][0]
        if all(len(head) < n for row in self.heads for head in row):
            self.rows = [[[n - 1] * KV for _ in range(self.batch)]]
        self.layer.evicted = self.ever_evicted = True

    @precondition(lambda self: len(self.rows) == 1 and isinstance(self.layer.parts[-1], DensePart))
    @rule(seed=seeds)
    def write_mass(self, seed: int) -> None:
        part = self.layer.parts[-1]
        mass = torch.rand(self.batch, KV, part.length, generator=torch.Generator().manual_seed(seed))
        part.write({"mass": mass})
        index = part.columns.get("index", torch.arange(part.length).expand(mass.shape))
        for b in range(self.batch):
            for h in range(KV):
                of = dict(zip(index[b, h].tolist(), mass[b, h].tolist(), strict=True))
                if "valid" in part.columns:
                    valid = part.columns["valid"][b, h]
                    of = dict(zip(index[b, h][valid].tolist(), mass[b, h][valid].tolist(), strict=True))
                self.heads[b][h] = [replace(e, mass=of[e.token]) for e in self.heads[b][h]]

    @precondition(lambda self: not self.ever_evicted and self.rows[0][0][0] > 1)
    @rule(n=st.integers(1, 3))
    def crop(self, n: int) -> None:
        n = min(n, self.rows[0][0][0] - 1)
        self.layer.crop(-n)
        self.token -= n
        self.heads = [[[e for e in head if e.token < self.token] for head in row] for row in self.heads]
        self.rows = [[[count - n for count in row] for row in self.rows[0]]]

    def take(self, order: list[int]) -> None:
        self.heads = [[list(head) for head in self.heads[b]] for b in order]
        self.rows = [[list(part[b]) for b in order] for part in self.rows]

    @rule(data=st.data())
    def reorder(self, data: st.DataObject) -> None:
        order = data.draw(st.lists(st.integers(0, self.batch - 1), min_size=self.batch, max_size=self.batch))
        self.layer.reorder_cache(torch.tensor(order))
        self.take(order)

    @precondition(lambda self: self.batch < 3)
    @rule()
    def repeat(self) -> None:
        self.layer.batch_repeat_interleave(2)
        self.take([b for b in range(self.batch) for _ in range(2)])

    @precondition(lambda self: self.batch > 1)
    @rule(data=st.data(), as_mask=st.booleans())
    def select(self, data: st.DataObject, as_mask: bool) -> None:
        rows = sorted(data.draw(st.sets(st.integers(0, self.batch - 1), min_size=1)))
        mask = torch.tensor([b in rows for b in range(self.batch)])
        self.layer.batch_select_indices(mask if as_mask else torch.tensor(rows))
        self.take(rows)

    @rule()
    def move(self) -> None:
        moved: Callable[[torch.Tensor], torch.Tensor] = lambda x: x.to("cpu", copy=True)  # noqa: E731
        self.layer.map(moved)
        self.layer.offload()
        self.layer.prefetch()

    @rule(on_disk=st.booleans())
    def save_and_load(self, on_disk: bool) -> None:
        kinds = {"dense": DensePart, "ragged": RaggedPart}
        parts = []
        for part in self.layer.parts:
            tensors = part.tensors()
            if on_disk:
                with tempfile.TemporaryDirectory() as folder:
                    save_file(tensors, Path(folder) / "part.safetensors")
                    tensors = load_file(Path(folder) / "part.safetensors")
            parts.append(kinds[part.kind].from_tensors(tensors))
        self.layer.parts = parts

    # -- what must hold after every operation ----------------------------------------------------------------------
    @invariant()
    def attention_is_that_of_the_lists(self) -> None:
        q = torch.randn(self.batch, HEADS, 2, D, generator=torch.Generator().manual_seed(self.token))
        out, lse = merge([part.attend(q, SCALE, None) for part in self.layer.parts])
        for b in range(self.batch):
            for h in range(HEADS):
                for i in range(2):
                    want, want_lse = slow_attention(q[b, h, i], self.heads[b][h * KV // HEADS])
                    torch.testing.assert_close(out[b, h, i], want, atol=1e-5, rtol=1e-5)
                    torch.testing.assert_close(float(lse[b, h, i]), want_lse, atol=1e-5, rtol=1e-5)

    @invariant()
    def sizes_are_those_of_the_lists(self) -> None:
        counts = [[len(head) for head in row] for row in self.heads]
        assert self.layer.lengths.tolist() == counts
        assert sum(part.entries for part in self.layer.parts) == sum(map(sum, counts))
        rows = sum(count for part in self.rows for row in part for count in row)
        assert self.layer.nbytes == rows * 2 * D * 4
        assert self.layer.stored == sum(max(map(max, part)) for part in self.rows)
        assert sum(part.allocated for part in self.layer.parts) >= self.layer.nbytes

    @invariant()
    def tokens_and_columns_are_those_of_the_lists(self) -> None:
        for b in range(self.batch):
            for h in range(KV):
                assert self.layer.kept(b, h).tolist() == sorted(e.token for e in self.heads[b][h])
                stored = {}
                for part in self.layer.parts:
                    _, _, columns = part.padded()
                    n = part.length
                    index = columns["index"][b, h] if "index" in columns else torch.arange(n)
                    mass = columns["mass"][b, h] if "mass" in columns else torch.zeros(n)
                    valid = columns["valid"][b, h] if "valid" in columns else torch.ones(n, dtype=torch.bool)
                    stored |= dict(zip(index[valid].tolist(), mass[valid].tolist(), strict=True))
                assert stored == {e.token: e.mass for e in self.heads[b][h]}


CacheMachine.TestCase.settings = settings(max_examples=25, stateful_step_count=15, derandomize=True, deadline=None)
TestCache = CacheMachine.TestCase
