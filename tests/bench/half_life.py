"""Which half-life predicts what newcomers take to: `python -m tests.bench.half_life FILE.inter`.

At each day, popularity until then meets what the users who came on that day did in their first
week. `seen` thins out what popularity counts, as in catalogs of fewer events a day. The file is
MovieLens 100K as RecBole has it (user, item, rating, seconds), which `make demo` fetches.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tests.bench.report import finish

HALF_LIVES_DAYS = (7.0, 14.0, 30.0, 60.0, 90.0, 365.0, np.inf)
SEEN = (1.0, 0.3, 0.1, 0.03)
SAMPLES = 20
CUTOFF = 20
FIRST_DAY = 14
WEEK = 7.0
_DAY_S = 86_400.0


@dataclass(frozen=True, slots=True, eq=False)
class Events:
    """Interactions by user and item, (n,) each, with their days since the first."""

    users: NDArray[np.int64]
    items: NDArray[np.int64]
    days: NDArray[np.float64]

    def at(self, chosen: NDArray[np.bool_]) -> Events:
        """Some of them."""
        return Events(self.users[chosen], self.items[chosen], self.days[chosen])


def read(path: str) -> Events:
    """The interactions of a file of RecBole's."""
    rows = np.loadtxt(path, skiprows=1)
    users, items = rows[:, 0].astype(np.int64), rows[:, 1].astype(np.int64)
    return Events(users, items, (rows[:, 3] - rows[:, 3].min()) / _DAY_S)


def newcomers(events: Events) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """Yield the day on which a user came, and the items of the user's first week."""
    for user in np.unique(events.users):
        own = events.at(events.users == user)
        first = own.days.min()
        if first >= FIRST_DAY:
            yield int(first), own.items[own.days < first + WEEK]


def most_popular(past: Events, half_life: float, item_count: int) -> NDArray[np.int64]:
    """The items with the highest decayed counts."""
    weights = np.exp2(-(past.days.max() - past.days) / half_life)
    counts = np.bincount(past.items, weights, minlength=item_count)
    return np.argsort(-counts, kind="stable")[:CUTOFF]


def recalls(events: Events, counted: Events) -> dict[str, float]:
    """The mean recall of each half-life over newcomers."""
    item_count = int(events.items.max()) + 1
    found: dict[float, list[float]] = {half_life: [] for half_life in HALF_LIVES_DAYS}
    for day, targets in newcomers(events):
        past = counted.at(counted.days < day)
        for half_life, values in found.items():
            top = most_popular(past, half_life, item_count)
            values.append(float(np.isin(targets, top).mean()))
    return {f"{half_life:g}": float(np.mean(values)) for half_life, values in found.items()}


def main(path: str) -> None:
    """Print a line of JSON for each share that is seen, means over samples."""
    events = read(path)
    rng = np.random.default_rng(0)
    for seen in SEEN:
        samples = [
            recalls(events, events.at(rng.random(len(events.days)) < seen))
            for _ in range(SAMPLES if seen < 1 else 1)
        ]
        means = {key: round(float(np.mean([one[key] for one in samples])), 4) for key in samples[0]}
        per_day = round(seen * len(events.days) / events.days.max())
        finish({"events_a_day": per_day, "recall@20": means})


if __name__ == "__main__":
    main(sys.argv[1])
