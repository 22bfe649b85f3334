"""What a contest says: per mode and budget a method, how sure that is, and what it costs; kept in a file per model."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from laconic.atomic import replacing
from laconic.bench.pick.contest import LEAST, Contest, Tally
from laconic.bench.statistics import LEVEL, sign_test, wilson
from laconic.engine.request import Mode
from laconic.errors import LaconicError
from laconic.pretrained import cache_folder

SCHEMA = 1
ENOUGH = 0.95
"""Share of the uncompressed model's answers from which a budget is called safe."""
CONTROL = "random"
"""Says how little a method can be worth; where nothing else was asked enough, it is no advice."""


class PickError(LaconicError, ValueError):
    """There is no verdict for this model, or its file cannot be read."""


@dataclass(frozen=True)
class Verdict:
    """The best method of one mode and budget.

    Attributes:
        mode: "later" or "in view". `keep`: share of the entries.
        method: as `laconic run --method` reads it. `share`: of the uncompressed model's right answers that it gives, with
            the 95 % interval `low`, `high`. `questions`: how many that rests on.
        rivals: method -> share, for those that may be as good: on the same questions, chance explains the difference.
        kv_share: bytes stored of bytes uncompressed.
        read_seconds, token_seconds: of one run on the first document, see `Times`; None where there was no time for one.
    """

    mode: Mode
    keep: float
    method: str
    share: float
    low: float
    high: float
    questions: int
    rivals: dict[str, float]
    kv_share: float
    read_seconds: float | None = None
    token_seconds: float | None = None


@dataclass(frozen=True)
class Pick:
    """All verdicts on one model.

    Attributes:
        fingerprint: of its weights. `data`: what was asked. `uncompressed`: its own figures: questions that were asked and
            answered, seconds per document and per token.
        minutes: what it took.
    """

    model: str
    fingerprint: str
    data: str
    minutes: float
    uncompressed: dict[str, float]
    verdicts: tuple[Verdict, ...]
    versions: dict[str, str]
    machine: dict[str, Any]

    def save(self, file: Path) -> None:
        """Write the file whole, or not at all."""
        file.parent.mkdir(parents=True, exist_ok=True)
        with replacing(file) as unfinished:
            text = json.dumps({"schema": SCHEMA, **asdict(self)}, indent=1, ensure_ascii=False) + "\n"
            unfinished.write_text(text, encoding="utf-8")

    @classmethod
    def load(cls, file: Path) -> Pick:
        """Read what `save` wrote.

        Raises:
            PickError: it is another kind of file, or damaged.
        """
        try:
            data = json.loads(file.read_text(encoding="utf-8"))
            if data.pop("schema") != SCHEMA:
                raise PickError(f"{file} was written by another version of laconic; run laconic pick again.")
            verdicts = tuple(Verdict(**one) for one in data.pop("verdicts"))
            return cls(verdicts=verdicts, **data)
        except PickError:
            raise
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise PickError(f"{file} holds no verdicts of laconic pick ({error}); run laconic pick again.") from error

    def choose(self, mode: str, keep: float | None = None) -> Verdict:
        """The verdict to follow.

        Args:
            keep: the budget wanted: the verdict of the closest one (by ratio) counts. None: the smallest budget whose method
                gives 95 % of the uncompressed answers, or the largest one that was tried.

        Raises:
            PickError: nothing was found out about this mode.
        """
        known = sorted((one for one in self.verdicts if one.mode == mode), key=lambda one: one.keep)
        if not known:
            raise PickError(
                f"laconic pick found out nothing about questions {mode}; run it again on {self.model} with more --minutes."
            )
        if keep is not None:
            return min(known, key=lambda one: max(one.keep / keep, keep / one.keep))
        return next((one for one in known if one.share >= ENOUGH), known[-1])


def place(fingerprint: str) -> Path:
    """Where the verdicts on the model with these weights are kept."""
    return cache_folder() / "picks" / f"{fingerprint}.json"


def verdicts(contest: Contest, mode: Mode) -> list[Verdict]:
    """One for each budget at which enough was asked to say anything, the largest first."""
    return [found for keep in sorted(contest.keeps, reverse=True) if (found := _verdict(contest, mode, keep)) is not None]


def _verdict(contest: Contest, mode: Mode, keep: float) -> Verdict | None:
    ranked = [method for method in contest.ranked(keep) if contest.tallies[method, keep].same]
    if not ranked:
        return None
    best, *others = ranked
    tally = contest.tallies[best, keep]
    if len(tally.same) < LEAST:
        return None
    asked = {method for method in ranked if len(contest.tallies[method, keep].same) >= LEAST}
    if asked == {CONTROL} != set(contest.methods):
        return None
    interval = wilson(sum(tally.same.values()), len(tally.same))
    rivals = {
        other: contest.tallies[other, keep].share for other in others if not _better(tally, contest.tallies[other, keep])
    }
    return Verdict(
        mode,
        keep,
        best,
        interval.mean,
        interval.low,
        interval.high,
        len(tally.same),
        rivals,
        sum(one.kv_bytes for one in tally.found) / sum(one.kv_bytes_full for one in tally.found),
    )


def _better(a: Tally, b: Tally) -> bool:
    """Whether `a` gives more of the answers to the questions that both were asked, beyond chance."""
    differ = [same for key, same in a.same.items() if key in b.same and b.same[key] != same]
    return sum(differ) > len(differ) / 2 and sign_test(sum(differ), len(differ) - sum(differ)) < 1 - LEVEL
