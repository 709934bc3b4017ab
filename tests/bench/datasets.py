"""Data sets with the protocol under which results on them are published.

A reader turns a folder into a `Split`; it is found by the files that the folder has, so that any
folder of the same format can be measured. Another format is another reader in `READERS`.
"""

from __future__ import annotations

import gzip
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

DEFAULT_ROOT = Path("data")
DEFAULT_NAME = "gowalla"


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """What to learn from, what to find, and how finding it is measured.

    Every item of the data set is ranked for every user of `held_out` but those that the user has
    in `train` or `folded_in`; a figure is the mean over these users.
    """

    format: str
    """The name of the format, for settings that were tuned on one data set of it."""
    train: pa.Table
    """Columns user_id and item_id, texts, a user's oldest first where the format has an order."""
    held_out: Mapping[str, frozenset[str]]
    """The items to find by user, at least one each."""
    cutoff: int
    """How many items are recommended."""
    metrics: Mapping[str, str]
    """What is reported: a name -> the field of `RankingMetrics`."""
    folded_in: pa.Table = field(default_factory=lambda: _events([], []))
    """What users did after training, of the same columns: read as history, never learned from."""

    @property
    def items(self) -> int:
        """How many items are ranked."""
        events = pa.concat_tables([self.train, self.folded_in])
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


def _events(users: Sequence[str], items: Sequence[str]) -> pa.Table:
    return pa.table(
        {"user_id": pa.array(users, pa.string()), "item_id": pa.array(items, pa.string())}
    )


def _lines(path: Path) -> Iterator[tuple[str, list[str]]]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        for line in file:
            if words := line.split():
                yield words[0], words[1:]


READERS: dict[tuple[str, ...], Callable[[Path], Split]] = {
    ("train.txt.gz", "test.txt.gz"): read_lightgcn,
    ("sequences.txt.gz",): read_sequences,
}
