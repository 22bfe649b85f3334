"""One layer of the compressed cache: parts that are attended exactly, then shortened by the method that owns the layer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import torch
from transformers.cache_utils import CacheLayerMixin

from laconic.cache.costs import count
from laconic.cache.incoming import NewEntries, Pass, new_columns
from laconic.cache.parts.base import DensePart, Entries, Part
from laconic.cache.parts.entries import filler_first, joined
from laconic.cache.parts.ragged import RaggedPart
from laconic.cache.rollback import Drafts, crop_layer
from laconic.errors import SessionError
from laconic.ops.attend import attend, attend_alone, attend_beside, attend_padded, merge
from laconic.ops.segments import attend_segments
from laconic.ops.select import Selection, from_mask
from laconic.step import gather

if TYPE_CHECKING:
    from laconic.cache.cache import CompressedCache
    from laconic.step import Step


class CompressedLayer(CacheLayerMixin):
    """A cache layer with two lengths: *seen* (positions, `get_seq_length`) and *stored* (entries, per head).

    The last part is the one that grows; it may be dense or ragged. All parts attend on their own and merge exactly.

    Attributes:
        parts: what is stored.
        state: what a method remembers about this layer beside its entries, batch first ([B, ...] each); it follows batch
            changes and is saved with the parts.
        record_past: generated tokens wait in `drafts` until `crop` says which of them stay; see `laconic.cache.rollback`.
        pinned: tokens seen when entries were last evicted, merged or packed; these tokens cannot be rolled back.
    """

    is_sliding = False
    is_compileable = False

    def __init__(self, cache: CompressedCache, number: int):
        super().__init__()
        self.cache, self.number = cache, number
        self.parts: list[Part] = []
        self.state: dict[str, torch.Tensor] = {}
        self.seen = self.pinned = 0
        self.record_past = False
        self.drafts = Drafts()

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

    is_croppable = True

    def activate_past_recording(self) -> None:
        """Generated tokens that come from now on may be taken back, whatever the method."""
        self.record_past = True
        if self.number == 0:
            self.cache.recording_asked = True

    def crop(self, tokens_to_remove: int) -> None:
        """Remove the last ``-tokens_to_remove`` tokens (a negative number, as in transformers); all others stay.

        Raises:
            SessionError: they were there already when entries were last evicted, merged or packed.
        """
        if tokens_to_remove > 0:
            raise ValueError(f"crop({tokens_to_remove}): pass a negative number of tokens to remove.")
        crop_layer(self, int(-tokens_to_remove))  # transformers 5.16 passes a tensor

    def reset(self) -> None:
        self.parts, self.state, self.seen, self.pinned, self.is_initialized = [], {}, 0, 0, False
        self.record_past, self.drafts = False, Drafts()

    # What the cache itself knows per sequence follows its first layer, so that it does so whatever `Cache` holds the layers.
    def reorder_cache(self, beam_idx: torch.LongTensor) -> None:
        self._select(lambda x: x.index_select(0, beam_idx.to(x.device)))

    def batch_repeat_interleave(self, repeats: int) -> None:
        self._select(lambda x: x.repeat_interleave(repeats, dim=0))

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        self._select(lambda x: x[indices.to(x.device)])

    def _select(self, rows: Callable[[torch.Tensor], torch.Tensor]) -> None:
        self.commit()
        self.map(rows)
        if self.number == 0:
            self.cache.selected_rows(rows)

    def offload(self) -> None:
        self.map(lambda x: x.to("cpu", non_blocking=True))

    def prefetch(self) -> None:
        self.map(lambda x: x.to(self.device, non_blocking=True))

    def map(self, f: Any) -> None:
        """Apply `f` to the tensors of all parts and of the state (batch first)."""
        for part in self.parts:
            part.map(f)
        self.drafts.map(f)
        self.state = {name: f(x) for name, x in self.state.items()}

    @property
    def evicted(self) -> bool:
        """Whether entries were evicted, merged or packed."""
        return self.pinned > 0

    @evicted.setter
    def evicted(self, happened: bool) -> None:
        self.pinned = self.seen - self.drafts.length if happened else 0

    @property
    def attended(self) -> list[Part]:
        """The parts that new tokens attend to: what is stored, and the drafts that wait."""
        return self.parts if self.drafts.part is None else [*self.parts, self.drafts.part]

    # -- sizes -----------------------------------------------------------------------------------------------------
    @property
    def stored(self) -> int:
        """Entries of the longest head."""
        return sum(part.length for part in self.attended)

    @property
    def lengths(self) -> torch.Tensor:
        """Real entries of every head, [B, Hkv]; [1, 1] in a layer that stores nothing, such as one without attention."""
        if not self.attended:
            return torch.zeros(1, 1, dtype=torch.int32)
        total = self.attended[0].lengths.cpu().clone()
        for part in self.attended[1:]:
            total += part.lengths.cpu()
        return total

    @property
    def nbytes(self) -> int:
        """Bytes of stored keys and values."""
        return sum(part.nbytes for part in self.attended)

    def buffers(self) -> Iterator[torch.Tensor]:
        """Every tensor that the layer keeps in memory: its parts' with their spare room, and what a method remembers."""
        for part in self.parts:
            yield from part.buffers()
        yield from self.drafts.buffers()
        yield from self.state.values()

    def kept(self, row: int, head: int) -> torch.Tensor:
        """Token indices that KV head `head` of batch row `row` still stores, ascending; stand-ins for several tokens
        (index -1) are left out. Empty in a layer that runs without attention."""
        if not self.attended:
            return torch.zeros(0, dtype=torch.long)
        found = []
        for part in self.attended:
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
        assert step is not None and step.generated is not None
        if q.shape[2] == 1 and not step.prefill and self.parts and not self.record_past:
            count(self, q, keys)
            columns = new_columns(self, keys)
            self.append(keys, values, columns)
            out = self._attend_stored(q, scale, softcap)
            self._decoded(Pass(q, keys, values, columns, scale, softcap), step)
            return out
        t = q.shape[2] - step.pseudo
        new = Pass(q, keys, values, new_columns(self, keys[:, :, :t]), scale, softcap).rows(0, t)
        prompt = new.rows(0, t - step.generated)
        if step.pseudo:
            prompt.pseudo = (q[:, :, t:], keys[:, :, t:], values[:, :, t:])
            if self.cache.hidden is not None:
                self.cache.hidden = self.cache.hidden.without(t - step.generated, t)
        rows = self._narrowed(prompt, step)
        if rows is None:
            count(self, q, keys)
            out, lse = self._attend_all(q, keys, values, scale, softcap, step.valid)
            prompt.pseudo_lse = None if lse is None else lse[:, :, t:]
        else:
            out = self._attend_some(q, keys, values, scale, softcap, step.valid, rows)
        self.seen = step.start + step.length - step.generated
        if step.prefill:
            with self.cache.during(step.prompt):
                self.cache.after_prefill(self, prompt)
        if step.generated:
            self._draft(new.rows(t - step.generated, t), step)
        return out

    def _narrowed(self, prompt: Pass, step: Step) -> torch.Tensor | None:
        """Positions [B, m] of a pass that take part in the attention: those of its prompt that the method names, and what
        was generated after it; None means all."""
        if not step.prefill:
            return None
        with self.cache.during(step.prompt):
            rows = self.cache.before_prefill(self, prompt)
        return rows if rows is None else _followed(rows, prompt.keys.shape[2], step)

    def _draft(self, new: Pass, step: Step) -> None:
        """Generated tokens have been attended: let them wait, or store them where none can be taken back."""
        assert step.generated is not None
        if self.cache.selected is not None:
            self.cache.selected = _followed(self.cache.selected, step.rows - step.generated, step)
        self.drafts.add(new, step.last(step.generated))
        self.seen = step.start + step.length
        if not self.record_past:
            self.commit()

    def commit(self) -> None:
        """Drafts that wait are not taken back any more."""
        if self.drafts.length:
            self.cache.pack_prompt()
            self.drafts.store(self)

    def decoded(self, new: Pass, step: Step) -> None:
        """Store one generated token, which has been attended, and let the method act on it. `step` is the running one."""
        new.columns = {**new.columns, **new_columns(self, new.keys)}
        self.append(new.keys, new.values, new.columns)
        self._decoded(new, step)

    def _decoded(self, new: Pass, step: Step) -> None:
        """`seen` is set before the method acts, because methods read it."""
        self.seen = step.start + step.length
        self.cache.after_decode(self, new)

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
        if step is not None and step.segments is not None:
            starts = [0] * q.shape[0] if valid is None else (~valid).sum(-1).tolist()
            new = attend_segments(q, keys, values, scale, q.shape[2] - step.pseudo, starts, step.segments, softcap)
        elif step is not None and step.pseudo and step.generated:
            new = attend_beside(q, keys, values, scale, step.generated, step.pseudo, valid, softcap)
        elif valid is not None:  # padding is always on the left: the session refuses anything else
            new = attend_padded(q, keys, values, scale, (~valid).sum(-1).tolist(), softcap)
        elif self.attended or (step is not None and step.pseudo):
            new = attend(q, keys, values, scale, causal=True, softcap=softcap)
        else:
            return attend_alone(q, keys, values, scale, causal=True, softcap=softcap), None
        return merge([new] + [part.attend(q, scale, softcap) for part in self.attended if part.length])

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
        count(self, few_q, few_keys)
        few_valid = own if valid is None else own & valid.gather(1, rows)
        few, _ = self._attend_all(few_q, few_keys, few_values, scale, softcap, None if bool(few_valid.all()) else few_valid)
        out = q.new_zeros(*q.shape[:3], values.shape[-1])
        at = rows[:, None, :, None].expand(-1, q.shape[1], -1, values.shape[-1])
        return out.scatter_add_(2, at, few * own[:, None, :, None])  # an unused slot adds zeros to position 0

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
        return joined([filler_first(part.padded()) for part in self.parts if part.length])

    def everything(self, keys: torch.Tensor, values: torch.Tensor, columns: dict[str, torch.Tensor]) -> Entries:
        """Stored entries followed by the new ones, as rectangles; real stored entries end where the new ones begin."""
        if not self.parts:
            return keys, values, columns
        if any(part.has("valid") for part in self.parts) and not any(part.has("index") for part in self.parts):
            # stored entries are about to be reordered, so the new ones must say which tokens they are
            index = torch.arange(keys.shape[2], device=keys.device, dtype=torch.int32) + self.stored
            columns = {"index": index.expand(keys.shape[:3]), **columns}
        pieces = [filler_first(part.padded()) for part in self.parts if part.length]
        return joined([*pieces, (keys, values, columns)])

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


def _followed(rows: torch.Tensor, first: int, step: Step) -> torch.Tensor:
    """Positions `rows` [B, m] of a prompt, followed by those from `first` on, of the tokens generated after it."""
    assert step.generated is not None
    generated = torch.arange(first, first + step.generated, device=rows.device)
    return torch.cat([rows, generated.expand(len(rows), -1)], 1)


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
