"""DiffRate: every encoder layer drops its least important tokens and merges the next ones, as many as a schedule says that
was learned by gradient (arXiv 2305.17997)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedModel

from laconic import checks
from laconic.artifact import Artifact
from laconic.errors import BudgetError
from laconic.families.vision import vision_family_of
from laconic.method import register
from laconic.methods.encoder.diffrate.schedule import Schedule
from laconic.ops.bipartite import Merging
from laconic.ops.similarity import first_best, unit
from laconic.stream.clusters import Clusters
from laconic.stream.contract import POLICIES, Cut, Policy, Stream, TokenMethod
from laconic.stream.tower import Between, Choice, MergingTower, check


@register(
    "diffrate",
    site="encoder",
    modality="image",
    mechanism="pruning, merging",
    principle="attention, similarity",
    source="arXiv 2305.17997",
    query_aware=False,
    training="trained",
    inferred="the number of tokens that reaches the decoder is fixed by the budget, and the schedule is learned for it; the "
    "mean attention received where there is no CLS token; sizes are at least 1",
)
@dataclass(kw_only=True)
class DiffRate(TokenMethod):
    """Sort the tokens of every layer by the attention of CLS; drop the last ones, and merge the next into similar ones.

    With counts p >= m of a layer, tokens sorted by what CLS attends to (after the sizes are in the logits):

        ranks from p on are dropped; ranks m .. p - 1 go to the most similar of the first m (cosine of the stream)
        x_j <- the plain mean of j and of all that went to it;  s_j <- s_j + sum of similarity * s_i

    The counts come from `laconic fit diffrate`, for one share of patches left and one number of patches. Nothing else is
    trained.

    Args:
        keep: share of each view's patches that is left when the features are taken; one that the artifact has.
        artifact: what `laconic fit diffrate` wrote: a file, a shipped name, or a Hub id. None takes the one shipped for
            these weights.
        positions: "renumber", without gaps; "gather": that of the first patch of every token.

    As in every method that acts inside the encoder, `tokens=` and `bytes=` cannot be given, and images that come within
    `session.hold()` are shortened, too.

    Raises:
        BudgetError: a budget other than a share, a share that was not learned, or a view of another number of patches.
        UnsupportedModelError: an encoder that packs images, or a model that merges or resamples patches after it.
    """

    artifact: str | None = None
    positions: Policy = "renumber"

    def __post_init__(self) -> None:
        if self.tokens is not None or self.bytes is not None:
            raise BudgetError(
                "diffrate: tokens are merged in the encoder, before the prompt is known, so tokens= and bytes= cannot be "
                "met; give keep=, the share of every image."
            )
        checks.one_of(self, "positions", *POLICIES)
        super().__post_init__()

    def attach(self, model: PreTrainedModel) -> None:
        if self.neutral:
            return
        check(model, self.name, proportional=True)
        data = Artifact.find(self.name, model, self.artifact).data
        assert self.keep is not None
        found = [one for one in data["schedules"] if abs(one["keep"] - self.keep) < 1e-6]
        if not found:
            shares = ", ".join(f"{one['keep']:g}" for one in data["schedules"])
            raise BudgetError(f"diffrate: keep={self.keep:g}: this artifact was made for {shares}; use one of these.")
        self._patches = int(data["patches"])
        self._schedule = Schedule(tuple(found[0]["prune"]), tuple(found[0]["merge"]))
        self._cls = vision_family_of(model).has_cls(model)

    def install(self, model: PreTrainedModel) -> list[RemovableHandle]:
        self._clusters = Clusters()
        return [] if self.neutral else MergingTower(model, self._choices, True, self._clusters.note).install()

    def _choices(self, patches: int, layers: int) -> list[Choice | None]:
        if patches != self._patches:
            raise BudgetError(
                f"diffrate: this schedule was learned for views of {self._patches} patches, and one has {patches}; fit it "
                "for such images, or use a method without a schedule."
            )
        return choices(self._schedule, patches + self._cls)

    def cut(self, stream: Stream) -> Cut:
        return self._clusters.cut(stream, self.name, self.positions)


def choices(schedule: Schedule, tokens: int) -> list[Choice | None]:
    """What happens in each layer to `tokens` tokens, CLS included."""
    counts = schedule.counts(tokens)
    return [partial(reduced, prune=p, merge=m) if m < entering else None for entering, p, m in counts]


def importance(between: Between) -> Tensor:
    """What CLS attends to, the mean over heads, fp32 [V, t]; CLS itself is above all. Without CLS, what each token receives
    on average."""
    rows = between.queries[:, :, :1] if between.cls else between.queries
    logits = rows.float() @ between.keys.float().mT * between.scale + between.size.float().log()[:, None, None]
    received = logits.softmax(-1).mean((1, 2))
    if between.cls:
        received[:, 0] = float("inf")
    return received


def reduced(between: Between, prune: int, merge: int) -> Merging:
    """The `merge` most important tokens stay, in their order, and those up to rank `prune` are merged into them."""
    order = importance(between).sort(dim=-1, descending=True, stable=True).indices
    views, t = order.shape
    stays = torch.zeros(views, t, dtype=torch.bool, device=order.device).scatter_(1, order[:, :merge], True)
    number = stays.long().cumsum(-1) - 1
    to = number.where(stays, -1)
    passed = torch.ones(views, t, device=order.device)
    if merge < prune:
        source, target = order[:, merge:prune], order[:, :merge]
        x = unit(between.x)
        sources, targets = (x.gather(1, at[..., None].expand(-1, -1, x.shape[-1])) for at in (source, target))
        similar = sources @ targets.mT
        if between.cls:
            similar[..., 0] = float("-inf")
        best = first_best(similar)
        to.scatter_(1, source, number.gather(1, target.gather(1, best)))
        passed.scatter_(1, source, similar.amax(-1))
    return Merging(to, merge, weight=torch.ones_like(passed), passed=passed)
