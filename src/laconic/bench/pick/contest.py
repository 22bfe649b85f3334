"""Who stays in: successive halving of methods at several budgets, question after question, for as long as there is time.

All methods of a budget answer the same questions. When a round is over, the worse half of them goes, and the next round is
twice as long; the last two go on to the end.

Where time is short, a verdict on fewer methods at one budget is worth more than none at three: methods that the first unit
has no time for are left out, and other budgets wait until the first has the questions that a verdict needs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from laconic.bench.grid import Column
from laconic.bench.pick.examiner import Found
from laconic.errors import LaconicError

ROUND = 12
"""Questions of the first round."""
LAST = 2
"""Methods of a budget that go on to the end."""
LEAST = 8
"""Questions below which there is no verdict."""
FIRST = 0.5
"""Of the time that a unit may take for a verdict to come in time, the share after which no further method is begun in the
first unit: the rest of the round has to come, and other budgets."""
SPARE = 1.5
"""Of what the first budget still needs for a verdict, as many times must be left for another one to be asked before."""


@dataclass
class Tally:
    """One method at one budget so far.

    Attributes:
        same: (unit, question) -> the answer was that of the uncompressed model.
    """

    same: dict[tuple[int, int], bool] = field(default_factory=dict)
    found: list[Found] = field(default_factory=list)

    @property
    def share(self) -> float:
        """Of the questions so far; 0 before there is one."""
        return sum(self.same.values()) / len(self.same) if self.same else 0.0

    @property
    def seconds(self) -> float:
        """Mean time that a unit took to find out."""
        return sum(one.seconds for one in self.found) / len(self.found) if self.found else 0.0

    @property
    def kv_share(self) -> float:
        """Bytes stored of bytes uncompressed, over all units; 1 before there is one."""
        full = sum(one.kv_bytes_full for one in self.found)
        return sum(one.kv_bytes for one in self.found) / full if full else 1.0


@dataclass
class Contest:
    """Methods at several budgets, in one mode.

    Attributes:
        alive: budget -> methods that are still in. `tallies`: of all that ever took part.
        refused: (method, budget) -> why it could not take part.
    """

    methods: Sequence[str]
    keeps: Sequence[float]
    alive: dict[float, list[str]] = field(init=False)
    tallies: dict[Column, Tally] = field(init=False)
    refused: dict[Column, str] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self.alive = {keep: list(self.methods) for keep in self.keeps}
        self.tallies = {(method, keep): Tally() for keep in self.keeps for method in self.methods}

    def run(
        self,
        units: Iterable[int],
        ask: Callable[[int, str, float], Found],
        time_left: Callable[[], float],
        each: Callable[[str, float], None] = lambda method, keep: None,
    ) -> None:
        """Ask until the units or the time are used up.

        A unit that not all methods of a budget got to does not count there: the time ran out in the middle of it.

        Args:
            units: numbers of what is asked about at once, one document, say.
            ask: unit, method, budget -> what was found.
            time_left: seconds until everything has to end.
            each: called before every method.
        """
        size, since, total = ROUND, dict.fromkeys(self.keeps, 0), time_left()
        for number, unit in enumerate(units):
            for keep in self.keeps:
                if keep != self.keeps[0] and time_left() < SPARE * self._needs():
                    continue
                found: dict[str, Found] = {}
                for method in list(self.alive[keep]):
                    opening = number == 0 and keep == self.keeps[0]
                    if opening and total - time_left() > FIRST * total * _questions(found) / LEAST > 0:
                        self._leave_out(method)
                        continue
                    if time_left() <= self.tallies[method, keep].seconds:
                        return
                    each(method, keep)
                    try:
                        found[method] = ask(unit, method, keep)
                    except LaconicError as error:
                        self.refused[method, keep] = str(error)
                        self.alive[keep].remove(method)
                for method, one in found.items():
                    tally = self.tallies[method, keep]
                    tally.found.append(one)
                    tally.same |= {(unit, question): same for question, same in one.same.items()}
                since[keep] += _questions(found)
            counts = [since[keep] for keep in self.keeps if self.alive[keep]]
            if not counts:
                return
            if min(counts) >= size:
                for keep in self.keeps:
                    self._halve(keep)
                since, size = dict.fromkeys(self.keeps, 0), 2 * size

    def _leave_out(self, method: str) -> None:
        for keep, alive in self.alive.items():
            if method in alive:
                alive.remove(method)
                self.refused[method, keep] = "there was no time to try it; give more --minutes, or fewer --methods."

    def _needs(self) -> float:
        """Seconds until the first budget has questions for a verdict, going by its first unit."""
        tallies = [self.tallies[method, self.keeps[0]] for method in self.alive[self.keeps[0]]]
        tallies = [tally for tally in tallies if tally.found and tally.found[0].same]
        if not tallies:
            return 0.0
        missing = max(LEAST - len(tallies[0].same), 0)
        return sum(tally.found[0].seconds for tally in tallies) * missing / len(tallies[0].found[0].same)

    def _halve(self, keep: float) -> None:
        ranked = self.ranked(keep)
        stay = ranked[: max(LAST, math.ceil(len(ranked) / 2))]
        self.alive[keep] = [method for method in self.alive[keep] if method in stay]

    def ranked(self, keep: float) -> list[str]:
        """Methods that are still in, the best first; of equals the one that stores less."""
        tallies = {method: self.tallies[method, keep] for method in self.alive[keep]}
        return sorted(tallies, key=lambda method: (-tallies[method].share, tallies[method].kv_share))


def _questions(found: dict[str, Found]) -> int:
    """How many a unit has."""
    return max((len(one.same) for one in found.values()), default=0)
