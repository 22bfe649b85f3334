"""One layer of the compressed cache: parts that are attended exactly, then shortened by the method that owns the layer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from transformers.cache_utils import CacheLayerMixin

from laconic.cache.parts.base import FILL, DensePart, Entries, Part
from laconic.cache.parts.ragged import RaggedPart
from laconic.errors import SessionError, UnsupportedModelError
from laconic.ops.attend import attend, attend_alone, attend_padded, merge
from laconic.ops.select import Selection, from_mask
from laconic.step import gather

if TYPE_CHECKING:
    from laconic.cache.cache import CompressedCache


@dataclass
class Pass:
    """What one forward pass brings to one layer.

    Attributes:
        queries: RoPE and q-norm applied, [B, H, T, D].
        keys, values: the T new entries, [B, Hkv, T, D].
        columns: of the new entries, [B, Hkv, T] each; those that a default explains are left out.
        scale, softcap: of the attention.
        pseudo: queries [B, H, P, D], keys and values of pseudo tokens, which run after the real ones and are not stored;
            None when there are none. `pseudo_lse`: log-sum-exp of each of their queries over all that it attends, [B, H, P].
    """

    queries: torch.Tensor
    keys: torch.Tensor
    values: torch.Tensor
    columns: dict[str, torch.Tensor]
    scale: float
    softcap: float | None
    pseudo: tuple[torch.Tensor, torch.Tensor, torch.Tensor] | None = None
    pseudo_lse: torch.Tensor | None = None


class NewEntries:
    """Keys and values of this pass on their way from `update()` to the attention function; not a tensor."""

    def __init__(self, layer: CompressedLayer, keys: torch.Tensor, values: torch.Tensor):
        self.layer, self.keys, self.values = layer, keys, values

    def __getattr__(self, name: str) -> Any:
        raise self._misfit(name)

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise cls._misfit(getattr(func, "__name__", str(func)))

    @staticmethod
    def _misfit(name: str) -> UnsupportedModelError:
        return UnsupportedModelError(
            f"this model uses `{name}` of its keys between the cache and the attention function, so its attention does not "
            "fit laconic's seam. Use a model whose attention calls `AttentionInterface` right after `cache.update()`."
        )


class CompressedLayer(CacheLayerMixin):
    """A cache layer with two lengths: *seen* (positions, `get_seq_length`) and *stored* (entries, per head).

    The last part is the one that grows; it may be dense or ragged. All parts attend on their own and merge exactly.

    Attributes:
        parts: what is stored.
        state: what a method remembers about this layer beside its entries, batch first ([B, ...] each); it follows batch
            changes and is saved with the parts.
    """

    is_sliding = False
    is_compileable = False

    def __init__(self, cache: CompressedCache, number: int):
        super().__init__()
        self.cache, self.number = cache, number
        self.parts: list[Part] = []
        self.state: dict[str, torch.Tensor] = {}
        self.seen = 0
        self.evicted = False

    # -- what transformers calls --------------------------------------------------------------------------------
    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        self.dtype, self.device = key_states.dtype, key_states.device
        self.is_initialized = True

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
        """Pass the new entries [B, Hkv, T, D] on to the attention function, which attends and then stores what stays."""
        if self.cache.step is None:
            raise SessionError("a compressed cache works inside `with laconic.compress(...)` only; open a session again.")
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        new = NewEntries(self, key_states, value_states)
        return new, new

    def get_seq_length(self) -> int:
        return self.seen

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.stored + query_length, self.seen - self.stored

    def get_max_length(self) -> int:
        return -1

    def get_max_cache_shape(self) -> int:
        """Name of `get_max_length` in older transformers."""
        return -1

    @property
    def is_croppable(self) -> bool:  # type: ignore[override]
        """Rolling back works while nothing was evicted."""
        return not self.evicted

    def crop(self, tokens_to_remove: int) -> None:
        """Remove the last ``-tokens_to_remove`` tokens (a negative number, as in transformers)."""
        if tokens_to_remove > 0:
            raise ValueError(f"crop({tokens_to_remove}): pass a negative number of tokens to remove.")
        if tokens_to_remove == 0 or not self.parts:
            return
        if self.evicted:
            raise SessionError(
                "a cache that has evicted entries cannot be rolled back (assisted decoding needs that); "
                "use keep=1.0 or plain decoding."
            )
        part = self.parts[-1]
        if not isinstance(part, DensePart) or part.length + tokens_to_remove < 0:
            raise SessionError(
                f"the last {-tokens_to_remove} tokens are stored packed and cannot be rolled back (assisted decoding needs "
                "that); use no storage method, or plain decoding."
            )
        part.length += tokens_to_remove
        self.seen += tokens_to_remove

    def reset(self) -> None:
        self.parts, self.state, self.seen, self.evicted, self.is_initialized = [], {}, 0, False, False

    def reorder_cache(self, beam_idx: torch.LongTensor) -> None:
        self.map(lambda x: x.index_select(0, beam_idx.to(x.device)))

    def batch_repeat_interleave(self, repeats: int) -> None:
        self.map(lambda x: x.repeat_interleave(repeats, dim=0))

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        self.map(lambda x: x[indices.to(x.device)])

    def offload(self) -> None:
        self.map(lambda x: x.to("cpu", non_blocking=True))

    def prefetch(self) -> None:
        self.map(lambda x: x.to(self.device, non_blocking=True))

    def map(self, f: Any) -> None:
        """Apply `f` to the tensors of all parts and of the state (batch first)."""
        for part in self.parts:
            part.map(f)
        self.state = {name: f(x) for name, x in self.state.items()}

    # -- sizes -----------------------------------------------------------------------------------------------------
    @property
    def stored(self) -> int:
        """Entries of the longest head."""
        return sum(part.length for part in self.parts)

    @property
    def lengths(self) -> torch.Tensor:
        """Real entries of every head, [B, Hkv]; [1, 1] in a layer that stores nothing, such as one without attention."""
        if not self.parts:
            return torch.zeros(1, 1, dtype=torch.int32)
        total = self.parts[0].lengths.cpu().clone()
        for part in self.parts[1:]:
            total += part.lengths.cpu()
        return total

    @property
    def nbytes(self) -> int:
        """Bytes of stored keys and values."""
        return sum(part.nbytes for part in self.parts)

    def buffers(self) -> Iterator[torch.Tensor]:
        """Every tensor that the layer keeps in memory: its parts' with their spare room, and what a method remembers."""
        for part in self.parts:
            yield from part.buffers()
        yield from self.state.values()

    def kept(self, row: int, head: int) -> torch.Tensor:
        """Token indices that KV head `head` of batch row `row` still stores, ascending; stand-ins for several tokens
        (index -1) are left out. Empty in a layer that runs without attention."""
        if not self.parts:
            return torch.zeros(0, dtype=torch.long)
        found = []
        for part in self.parts:
            keys, _, columns = part.padded()
            index = columns["index"][row, head] if "index" in columns else torch.arange(keys.shape[2])
            found.append(index[columns["valid"][row, head]] if "valid" in columns else index)
        kept = torch.cat(found).long().sort().values
        return kept[kept >= 0]

    # -- one pass --------------------------------------------------------------------------------------------------
    def attend(
        self, q: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, scale: float, softcap: float | None
    ) -> torch.Tensor:
        """Exact attention of q [B, H, T, D] over stored and new entries -> [B, H, T, Dv]; then the layer is shortened.

        The order is what makes compression safe: attend first, store afterwards. In prefill the output of the prompt never
        depends on what is evicted from this layer. While decoding the new entry is appended first, because it is attended,
        too, and `seen` is set before the method acts, because methods read it. Pseudo tokens take part in the
        attention (rows t: of q, keys and values), but what the cache sees as new ends before them.
        """
        step = self.cache.step
        assert step is not None
        decoding = q.shape[2] == 1 and not step.prefill and bool(self.parts)
        t = q.shape[2] - step.pseudo
        columns = self._new_columns(keys[:, :, :t])
        if decoding:
            self.cache.count(self, q, keys)
            self.append(keys, values, columns)
            out = self._attend_stored(q, scale, softcap)
            self.seen = step.start + step.length
            self.cache.after_decode(self, Pass(q, keys, values, columns, scale, softcap))
            return out
        new = Pass(q, keys, values, columns, scale, softcap)
        if step.pseudo:
            pseudo = (q[:, :, t:], keys[:, :, t:], values[:, :, t:])
            new = Pass(q[:, :, :t], keys[:, :, :t], values[:, :, :t], columns, scale, softcap, pseudo)
        rows = self.cache.before_prefill(self, new)
        if rows is None:
            self.cache.count(self, q, keys)
            out, lse = self._attend_all(q, keys, values, scale, softcap, step.valid)
            new.pseudo_lse = None if lse is None else lse[:, :, t:]
        else:
            out = self._attend_some(q, keys, values, scale, softcap, step.valid, rows)
        self.seen = step.start + step.length
        self.cache.after_prefill(self, new)
        return out

    def _attend_stored(self, q: torch.Tensor, scale: float, softcap: float | None) -> torch.Tensor:
        """q [B, H, 1, D] over all parts, the newest token among them."""
        part = self.parts[-1]
        if len(self.parts) == 1 and part.plain:
            assert isinstance(part, DensePart)
            return attend_alone(q, part.keys, part.values, scale, softcap=softcap)
        return merge([part.attend(q, scale, softcap) for part in self.parts if part.length])[0]

    def _attend_all(
        self,
        q: torch.Tensor,
        keys: torch.Tensor,
        values: torch.Tensor,
        scale: float,
        softcap: float | None,
        valid: torch.Tensor | None,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """q [B, H, T, D] over the stored parts (all in the past: no mask) and causally over the T new entries: output and,
        wherever it is known or pseudo tokens need it, lse."""
        step = self.cache.step
        if valid is not None:  # padding is always on the left: the session refuses anything else
            new = attend_padded(q, keys, values, scale, (~valid).sum(-1).tolist(), softcap)
        elif self.parts or (step is not None and step.pseudo):
            new = attend(q, keys, values, scale, causal=True, softcap=softcap)
        else:
            return attend_alone(q, keys, values, scale, causal=True, softcap=softcap), None
        return merge([new] + [part.attend(q, scale, softcap) for part in self.parts if part.length])

    def _attend_some(
        self,
        q: torch.Tensor,
        keys: torch.Tensor,
        values: torch.Tensor,
        scale: float,
        softcap: float | None,
        valid: torch.Tensor | None,
        rows: torch.Tensor,
    ) -> torch.Tensor:
        """The same among the positions `rows` [B, m] of this pass alone (sorted; -1, at the start of a row, is an unused
        slot); the others get zeros, so that the residual connection carries them on."""
        own = rows >= 0
        rows = rows.clamp(min=0)
        few_q, few_keys, few_values = (gather(x, rows, 2) for x in (q, keys, values))
        self.cache.count(self, few_q, few_keys)
        few_valid = own if valid is None else own & valid.gather(1, rows)
        few, _ = self._attend_all(few_q, few_keys, few_values, scale, softcap, None if bool(few_valid.all()) else few_valid)
        out = q.new_zeros(*q.shape[:3], values.shape[-1])
        at = rows[:, None, :, None].expand(-1, q.shape[1], -1, values.shape[-1])
        return out.scatter_add_(2, at, few * own[:, None, :, None])  # an unused slot adds zeros to position 0

    def _new_columns(self, keys: torch.Tensor) -> dict[str, torch.Tensor]:
        """Columns of this pass's entries; a column is left out for as long as its default describes every entry."""
        step = self.cache.step
        assert step is not None
        b, h, t = keys.shape[:3]
        columns = {}
        indexed = step.index is not None
        for part in self.parts:  # the place in a part that follows another does not tell the token
            indexed = indexed or part.has("index") or part.frozen
        if indexed:
            columns["index"] = step.token_index(b)[:, None].expand(b, h, t)
        if step.valid is not None:
            columns["valid"] = step.valid[:, None].expand(b, h, t)
        return columns

    def keep(self, entries: Entries, mask: torch.Tensor) -> None:
        """Store only those of `entries` that `mask` [B, Hkv, n] names, numbered as `restored` gives them; heads become
        ragged."""
        keys, values, columns = entries
        if "index" not in columns:
            b, h, n = keys.shape[:3]
            columns = {**columns, "index": torch.arange(n, device=keys.device, dtype=torch.int32).expand(b, h, n)}
        self.store([selected(keys, values, columns, from_mask(mask), ragged=True)])

    def restored(self) -> Entries:
        """All stored entries as rectangles; a copy unless one dense part holds them."""
        if len(self.parts) == 1:
            return self.parts[0].padded()
        return self._joined([self._filler_first(part.padded()) for part in self.parts if part.length])

    def everything(self, keys: torch.Tensor, values: torch.Tensor, columns: dict[str, torch.Tensor]) -> Entries:
        """Stored entries followed by the new ones, as rectangles; real stored entries end where the new ones begin."""
        if not self.parts:
            return keys, values, columns
        if any(part.has("valid") for part in self.parts) and not any(part.has("index") for part in self.parts):
            # stored entries are about to be reordered, so the new ones must say which tokens they are
            index = torch.arange(keys.shape[2], device=keys.device, dtype=torch.int32) + self.stored
            columns = {"index": index.expand(keys.shape[:3]), **columns}
        pieces = [self._filler_first(part.padded()) for part in self.parts if part.length]
        return self._joined([*pieces, (keys, values, columns)])

    def _joined(self, pieces: list[Entries]) -> Entries:
        names = {name for piece in pieces for name in piece[2]}
        merged = {}
        for name in names:
            merged[name] = torch.cat([self._default(name, piece) for piece in pieces], -1)
        return torch.cat([p[0] for p in pieces], 2), torch.cat([p[1] for p in pieces], 2), merged

    def _filler_first(self, piece: Entries) -> Entries:
        """Move filler of short rows to the front: scores are pooled over neighbours, and what a row's neighbours are must
        not depend on the other rows of the batch."""
        keys, values, columns = piece
        if "valid" not in columns:
            return piece
        columns = {**columns, "index": self._default("index", piece)}
        order = columns["valid"].int().argsort(dim=-1, stable=True)

        def ordered(x: torch.Tensor) -> torch.Tensor:
            return x.gather(2, order.view(*order.shape, *[1] * (x.ndim - 3)).expand(*order.shape, *x.shape[3:]))

        return ordered(keys), ordered(values), {name: ordered(column) for name, column in columns.items()}

    def _default(self, name: str, piece: Entries) -> torch.Tensor:
        keys, _, columns = piece
        if name in columns:
            return columns[name]
        if name == "index":  # nothing has been evicted yet: entries are the tokens 0, 1, 2, ...
            return torch.arange(keys.shape[2], device=keys.device, dtype=torch.int32).expand(keys.shape[:3])
        dtype, fill = FILL[name]
        return torch.full(keys.shape[:3], fill, dtype=dtype, device=keys.device)

    def append(self, keys: torch.Tensor, values: torch.Tensor, columns: dict[str, torch.Tensor]) -> None:
        """Store all new entries; after parts that forks share, in a part of their own."""
        if not self.parts:
            self.parts = [DensePart(keys, values, columns)]
        elif self.parts[-1].frozen:
            self.parts.append(self.parts[-1].followed_by(keys, values, columns))
        else:
            self.parts[-1].append(keys, values, columns)

    def store(self, parts: list[Part]) -> None:
        """Replace all that is stored by these parts; some entries were removed or changed."""
        self.parts, self.evicted = parts, True

    def remember(self, queries: torch.Tensor, most: int) -> None:
        """Keep the latest `most` queries [B, H, <= most, D] in ``state["queries"]``, for methods that score with them."""
        if "queries" in self.state:
            queries = torch.cat([self.state["queries"], queries], 2)
        self.state["queries"] = queries[:, :, -most:].clone()


def selected(
    keys: torch.Tensor, values: torch.Tensor, columns: dict[str, torch.Tensor], selection: Selection, ragged: bool
) -> Part:
    """A part of only the selected of the given entries [B, Hkv, n, D]; the rest is freed with the tensors that held it."""
    n = keys.shape[2]
    if selection.lengths is None:
        return DensePart.picked(keys, values, columns, selection.index)
    if ragged:
        columns = {name: column for name, column in columns.items() if name != "valid"}
        return RaggedPart.picked(keys, values, columns, selection.index, selection.lengths)
    part = DensePart.picked(keys, values, columns, selection.index.clamp(max=n - 1))
    part.write({"valid": selection.index < n})
    return part
