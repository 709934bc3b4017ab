"""Data sets with the protocol under which results on them are published.

A reader turns a folder into a `Split`; it is found by the files that the folder has, so that any
folder of the same format can be measured. Another format is another reader in `READERS`.
"""

from __future__ import annotations

import csv
import gzip
import os
import random
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

DEFAULT_ROOT = Path("data")
DEFAULT_NAME = "gowalla"
LIKED = 4.0
"""From which of goodbooks' ratings on a book is liked."""


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """What to learn from, what to find, and how finding it is measured.

    Every item of the data set is ranked for every user of `held_out` but those that the user has
    in `train` or `folded_in`; a figure is the mean over these users.
    """

    format: str
    """The name of the format, for settings that were tuned on one data set of it."""
    train: pa.Table
    """Columns user_id and item_id, texts, a user's oldest first where the format has an order;
    and rating, a number, where the format has ratings."""
    held_out: Mapping[str, frozenset[str]]
    """The items to find by user, at least one each."""
    cutoff: int
    """How many items are recommended."""
    metrics: Mapping[str, str]
    """What is reported: a name -> the field of `RankingMetrics`."""
    folded_in: pa.Table = field(default_factory=lambda: _events([], []))
    """What users did after training, of the same columns: read as history, never learned from."""
    foretold: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """Ratings that models of ratings are to foretell, by user and item."""
    liked_from: float | None = None
    """From which rating on an item counts as liked; None where there are no ratings."""

    @property
    def items(self) -> int:
        """How many items are ranked."""
        names = ["user_id", "item_id"]
        events = pa.concat_tables([self.train.select(names), self.folded_in.select(names)])
        found = set(pc.unique(events["item_id"]).to_pylist())
        return len(found.union(*self.held_out.values()))


def default_folder() -> Path:
    """Gowalla where `MILVINE_DATA` points, or in `data`."""
    return Path(os.environ.get("MILVINE_DATA") or DEFAULT_ROOT) / DEFAULT_NAME


def read(folder: Path) -> Split:
    """Read the data set of a folder; raises FileNotFoundError where none of the readers can."""
    for files, reader in READERS.items():
        if all((folder / name).is_file() for name in files):
            return reader(folder)
    known = "; or ".join(" and ".join(files) for files in READERS)
    raise FileNotFoundError(f"{folder} has no data set: there must be {known}")


def read_lightgcn(folder: Path) -> Split:
    """Read a data set as LightGCN's authors split it: a line a user, `user item item …`.

    Recall@20 is the share of the user's test items that the list has; NDCG@20 has binary gains and
    an ideal list of min(20, test items).
    """
    users: list[str] = []
    items: list[str] = []
    for user, taken in _lines(folder / "train.txt.gz"):
        users += [user] * len(taken)
        items += taken
    held_out = {user: frozenset(taken) for user, taken in _lines(folder / "test.txt.gz") if taken}
    return Split(
        format=DEFAULT_NAME,
        train=_events(users, items),
        held_out=held_out,
        cutoff=20,
        metrics={"recall": "recall", "ndcg": "ndcg"},
    )


def read_sequences(folder: Path) -> Split:
    """Read a data set as S3-Rec's authors do: a line a user, `user item item …`, oldest first.

    The last item of a user is to be found. As there and with SASRec, the one before is kept from
    training, where it validates, and is the end of the history that recommendations are made of.
    HR@10 is the share of users whose item stands in the list of 10.
    """
    train: list[tuple[str, str]] = []
    folded_in: list[tuple[str, str]] = []
    held_out: dict[str, frozenset[str]] = {}
    for user, taken in _lines(folder / "sequences.txt.gz"):
        *learned, validates, tests = taken
        train += [(user, item) for item in learned]
        folded_in.append((user, validates))
        held_out[user] = frozenset([tests])
    return Split(
        format="beauty",
        train=_events(*zip(*train, strict=True)),
        held_out=held_out,
        cutoff=10,
        metrics={"hr": "hit_rate", "ndcg": "ndcg"},
        folded_in=_events(*zip(*folded_in, strict=True)),
    )


def read_goodbooks(folder: Path) -> Split:
    """Read ratings of 1 to 5, a fifth of which are held out of each reader who has five or more.

    Those held out that are 4 or 5 are to be found; Recall@20 and NDCG@20 are as LightGCN's. All
    that are held out are to be foretold. Of a pair that stands twice the last rating counts.
    """
    rated: defaultdict[str, dict[str, float]] = defaultdict(dict)
    for row in rows_of(folder / "ratings.csv.gz"):
        rated[row["user_id"]][row["book_id"]] = float(row["rating"])
    draw = random.Random(0)  # noqa: S311 - the same in each run
    train: list[tuple[str, str, float]] = []
    foretold: dict[str, dict[str, float]] = {}
    for user, ratings in rated.items():
        drawn = draw.sample(sorted(ratings), len(ratings) // 5)
        train += [(user, item, ratings[item]) for item in ratings.keys() - drawn]
        if drawn:
            foretold[user] = {item: ratings[item] for item in drawn}
    users, items, values = zip(*sorted(train), strict=True)
    liked = {
        user: frozenset(item for item, rating in ratings.items() if rating >= LIKED)
        for user, ratings in foretold.items()
    }
    return Split(
        format="goodbooks",
        train=_events(users, items).append_column("rating", pa.array(values, pa.float64())),
        held_out={user: found for user, found in liked.items() if found},
        cutoff=20,
        metrics={"recall": "recall", "ndcg": "ndcg"},
        foretold=foretold,
        liked_from=LIKED,
    )


def _events(users: Sequence[str], items: Sequence[str]) -> pa.Table:
    return pa.table(
        {"user_id": pa.array(users, pa.string()), "item_id": pa.array(items, pa.string())}
    )


def rows_of(path: Path) -> Iterator[dict[str, str]]:
    """Yield the rows of a compressed CSV file that names its columns."""
    with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
        yield from csv.DictReader(file)


def _lines(path: Path) -> Iterator[tuple[str, list[str]]]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        for line in file:
            if words := line.split():
                yield words[0], words[1:]


READERS: dict[tuple[str, ...], Callable[[Path], Split]] = {
    ("train.txt.gz", "test.txt.gz"): read_lightgcn,
    ("sequences.txt.gz",): read_sequences,
    ("ratings.csv.gz", "books.csv.gz"): read_goodbooks,
}
