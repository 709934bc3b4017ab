"""The stages of a ranking after the model's score, as functions of arrays: boosts and the choice.

The choice is greedy: one hit after the other, each the best of those that no cap rules out. By
score alone that is a walk down the scores. With diversity it is maximal marginal relevance among
the best by score (Carbonell and Goldstein, 1998, section 2), and a walk down the rest. Hits of
earlier pages count as chosen, so a page is where one long choice goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from milvine.domain.ranking import Diversity

Rows: TypeAlias = NDArray[np.int32]
"""Rows of items, (n,)."""
Scores: TypeAlias = NDArray[np.float64]
"""A score for each, (n,), finite."""

MOST_HALVINGS = 500.0
"""Factors of decays fall no further than so many halves, so that no score comes to infinity."""
_LEAST_FACTOR = 2.0**-MOST_HALVINGS
_BLOCK = 1_024
_LARGEST_BLOCK = 8_192
"""How many candidates are sorted at first and at most, before the next ones are."""

NO_ROWS: Rows = np.empty(0, np.int32)


@dataclass(frozen=True, slots=True, eq=False)
class Slate:
    """Items with scores: to choose from, in no order, or those that were chosen, in theirs."""

    rows: Rows
    """Their rows; none comes twice."""
    scores: Scores

    @classmethod
    def of(cls, rows: Rows, scores: NDArray[np.floating]) -> Slate:
        """A slate of any scores: what is no number comes last, what is infinite is cut."""
        lowest, highest = np.finfo(np.float32).min, np.finfo(np.float32).max
        known = np.where(np.isnan(scores), lowest, scores).astype(np.float64)
        return cls(rows, np.clip(known, lowest, highest))

    def __len__(self) -> int:
        return len(self.rows)

    def at(self, places: NDArray[np.integer] | NDArray[np.bool_]) -> Slate:
        """The items at some places, in the order of those."""
        return Slate(self.rows[places], self.scores[places])


class Labels(Protocol):
    """The values of a field, each distinct one as a number from 0."""

    @property
    def count(self) -> int:
        """How many distinct values there are."""

    def take(self, rows: Rows) -> NDArray[np.int32]:
        """The values of rows, (n, most values of one), distinct in a row; -1 where there is none.

        At least one column.
        """


@dataclass(frozen=True, slots=True, eq=False)
class Limit:
    """At most `most` hits with the same value."""

    labels: Labels
    most: int


@dataclass(frozen=True, slots=True, eq=False)
class Rules:
    """How hits are chosen."""

    tastes: Callable[[Rows], NDArray[np.float32]]
    """The directions of the tastes of rows, (n, taste dimension), each of length 1 or 0."""
    diversity: Diversity | None = None
    limits: Sequence[Limit] = ()


def decayed(values: NDArray[np.float64], origin: float, half: float) -> NDArray[np.float64]:
    """The factors of values, (n,): 1 at `origin` and for NaN, a half at `half` from there."""
    with np.errstate(over="ignore"):
        halvings = np.minimum(np.abs(values - origin) / half, MOST_HALVINGS)
    factors: NDArray[np.float64] = np.exp2(-np.where(np.isnan(halvings), 0.0, halvings))
    return factors


def together(factors: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """What one or more factors of the same items, (n,) each, come to; never 0."""
    product: NDArray[np.float64] = np.maximum(np.multiply.reduce(factors), _LEAST_FACTOR)
    return product


def boosted(scores: Scores, factors: NDArray[np.float64]) -> Scores:
    """The scores times their factors, (n,); those below 0 are divided by them."""
    return np.where(scores < 0, scores / factors, scores * factors)


def choose(slate: Slate, count: int, rules: Rules, shown: Rows = NO_ROWS) -> NDArray[np.int64]:
    """Choose hits one after the other; fewer than `count` where no more are allowed.

    Args:
        slate: What to choose from, hits of earlier pages among them.
        count: How many to choose.
        rules: How.
        shown: The hits of earlier pages: they are chosen already, and count for caps and likeness.

    Returns:
        The places of what was chosen, (n,), in its order. Of equals, the smaller row comes first.
    """
    caps = _Caps(rules.limits, shown)
    is_new = ~np.isin(slate.rows, shown)
    width = rules.diversity.candidates if rules.diversity else 0
    blocks = _descending(slate, max(width, _BLOCK))
    first = next(blocks, np.empty(0, np.int64))
    window = first[:width]
    chosen: list[int] = []
    if rules.diversity and is_new[window].any():
        spread = _Spread(slate.at(window), rules.diversity, rules.tastes, shown)
        chosen = window[spread.walk(is_new[window], count, caps)].tolist()
    for block in chain([first[width:]], blocks):
        if len(chosen) >= count:
            break
        new = block[is_new[block]]
        chosen += new[caps.walk(slate.rows[new], count - len(chosen))].tolist()
    return np.array(chosen, np.int64)


def _descending(slate: Slate, size: int) -> Iterator[NDArray[np.int64]]:
    """Yield places by score, then by row, in blocks of at least `size` that grow.

    Mostly the first is enough, and to sort it costs much less than to sort a catalog.
    """
    left = np.arange(len(slate))
    while len(left):
        block = left
        if len(left) > size:
            scores = slate.scores[left]
            is_next = scores >= np.partition(scores, len(left) - size)[len(left) - size]
            block, left = left[is_next], left[~is_next]
        else:
            left = left[:0]
        yield block[np.lexsort((slate.rows[block], -slate.scores[block]))]
        size = max(size, min(4 * size, _LARGEST_BLOCK))


class _Caps:
    """The caps of a choice, and how often it has each value already."""

    def __init__(self, limits: Sequence[Limit], shown: Rows) -> None:
        self._limits = limits
        # The last count stands for "no value", whose code is -1, and stays 0.
        self._counts = [np.zeros(limit.labels.count + 1, np.int64) for limit in limits]
        for counts, limit in zip(self._counts, limits, strict=True):
            np.add.at(counts, limit.labels.take(shown), 1)
            counts[-1] = 0

    def codes(self, rows: Rows) -> list[NDArray[np.int32]]:
        """The values of rows, (n, most values of one) for each cap."""
        return [limit.labels.take(rows) for limit in self._limits]

    def allowed(self, codes: Sequence[NDArray[np.int32]]) -> NDArray[np.bool_]:
        """Which of some rows, (n,), by their codes, another hit could be; needs a cap."""
        tallies = zip(self._counts, self._limits, codes, strict=True)
        below = [(counts[values] < limit.most).all(axis=-1) for counts, limit, values in tallies]
        allowed: NDArray[np.bool_] = np.logical_and.reduce(below)
        return allowed

    def add(self, codes: Sequence[NDArray[np.int32]]) -> None:
        """Count a hit by its codes, (most values of one,) for each cap."""
        for counts, values in zip(self._counts, codes, strict=True):
            counts[values] += 1
            counts[-1] = 0

    def walk(self, rows: Rows, count: int) -> list[int]:
        """The first places that are allowed one after the other, at most `count`; counts them."""
        if not self._limits:
            return list(range(min(count, len(rows))))
        codes = self.codes(rows)
        chosen: list[int] = []
        # What is full before drops out at once: mostly that is nearly all.
        for place in np.flatnonzero(self.allowed(codes)).tolist():
            if len(chosen) >= count:
                break
            own = [values[place] for values in codes]
            if self.allowed(own):
                chosen.append(place)
                self.add(own)
        return chosen


class _Spread:
    """Maximal marginal relevance among some candidates."""

    def __init__(
        self,
        window: Slate,
        diversity: Diversity,
        tastes: Callable[[Rows], NDArray[np.float32]],
        shown: Rows,
    ) -> None:
        self._rows = window.rows
        self._directions = tastes(window.rows)  # (n, taste dimension)
        self._relevance = diversity.relevance * _scaled(window.scores)
        self._unlikeness = 1.0 - diversity.relevance
        self._likeness: NDArray[np.float64] | None = None  # (n,), none before the first hit
        for direction in tastes(shown):
            self._add(direction)

    def walk(self, is_open: NDArray[np.bool_], count: int, caps: _Caps) -> list[int]:
        """The places of at most `count` that are open, one after the other; counts them."""
        codes = caps.codes(self._rows)
        chosen: list[int] = []
        while len(chosen) < count:
            is_open = is_open & caps.allowed(codes) if codes else is_open
            if not is_open.any():
                break
            place = int(np.argmax(np.where(is_open, self._worth(), -np.inf)))
            is_open[place] = False
            chosen.append(place)
            caps.add([values[place] for values in codes])
            self._add(self._directions[place])
        return chosen

    def _worth(self) -> NDArray[np.float64]:
        if self._likeness is None:
            return self._relevance
        return self._relevance - self._unlikeness * self._likeness

    def _add(self, direction: NDArray[np.float32]) -> None:
        """Take a hit into account: of those before, the highest likeness says enough."""
        # One at a time, so that equals stay equal on whatever page they come.
        cosines = (self._directions @ direction).astype(np.float64)
        self._likeness = cosines if self._likeness is None else np.maximum(self._likeness, cosines)


def _scaled(scores: Scores) -> Scores:
    """The scores from 0 for the lowest to 1 for the highest; 0 where all are equal."""
    low, high = scores.min(), scores.max()
    return (scores - low) / (high - low) if high > low else np.zeros(len(scores))
