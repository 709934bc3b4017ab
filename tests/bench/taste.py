"""Whether lists follow a taste that turns: `python -m tests.bench.taste [FILE] [--model als]`.

A fifth of the people of MovieLens 100K takes no part in training. Each of them then likes ten films
that someone else liked first, the one with the least in common. Without retraining, where do the
other films which that one liked stand, before and after? The file is that of RecBole (user, item,
rating, seconds), which `make demo` and `make test` fetch.

The last line on stdout is one JSON object: by family, recall@20 and the share of pairs in which
such a film comes before one that the other did not like, means over people, with the standard error
of the gain.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from milvine.domain.catalog import Catalog, EventType, ValueMeaning
from milvine.domain.interaction import INTERACTIONS
from milvine.domain.model import Setting
from milvine.models import Run, Vocabulary, families, history_of
from milvine.training.dataset import build
from tests.bench.report import console, finish

FILE = Path(__file__).parents[2] / "build/demo/ml-100k.inter"
LIKED_FROM = 4.0
CATALOG = Catalog(
    "films", (EventType("rating", value_meaning=ValueMeaning.RATING, liked_from=LIKED_FROM),)
)
NEW = 10
LEAST_LIKED = 20
"""Films that a person likes at least, to give ten and leave some to find."""
CUTOFF = 20
METRICS = ("recall@20", "pairs")
SETTINGS: Mapping[str, Mapping[str, Setting]] = {"sasrec": {"epochs": 15}}
"""Where the defaults take minutes and gain little here."""
_SECOND = 1_000_000


@dataclass(frozen=True, slots=True, eq=False)
class Turn:
    """Someone whose taste turns to another one's."""

    before: pa.Table
    """What the person did, as a table of interactions."""
    new: pa.Table
    """The ten likes of the other taste, which come after."""
    wanted: frozenset[str]
    """What else the other one likes, and the person has not had."""


def read(path: Path) -> pa.Table:
    """The interactions of a file of RecBole's."""
    users, items, ratings, seconds = np.loadtxt(path, skiprows=1).T
    columns = {
        "event_id": pa.nulls(len(users), pa.string()),
        "user_id": pa.array(users.astype(int).astype(str)),
        "item_id": pa.array(items.astype(int).astype(str)),
        "event_type": pa.array(["rating"] * len(users)),
        "value": pa.array(ratings),
        "event_time": pa.array(seconds.astype(np.int64) * _SECOND),
    }
    return pa.table(columns, schema=INTERACTIONS).sort_by([("event_time", "ascending")])


def parted(events: pa.Table) -> tuple[pa.Table, list[pa.Table]]:
    """What to train on, and all events of each person who is left out of it."""
    users = np.array(sorted(set(events["user_id"].to_pylist()), key=int))
    left_out = np.random.default_rng(0).permutation(users)[: len(users) // 5].tolist()
    is_out = pc.is_in(events["user_id"], value_set=pa.array(left_out))
    people = [events.filter(pc.equal(events["user_id"], user)) for user in left_out]
    return events.filter(pc.invert(is_out)), people


def turns(people: Sequence[pa.Table]) -> list[Turn]:
    """How each person turns to the taste that has the least in common with theirs."""
    liked = [_liked(person) for person in people]
    able = [n for n, table in enumerate(liked) if len(table) >= LEAST_LIKED]
    items = [set(table["item_id"].to_pylist()) for table in liked]
    found = []
    for n in able:
        others = [m for m in able if m != n]
        other = min(others, key=lambda m: len(items[n] & items[m]) / len(items[n] | items[m]))
        found.append(_turn(people[n], liked[other]))
    return [turn for turn in found if turn.wanted]


def _liked(person: pa.Table) -> pa.Table:
    return person.filter(pc.greater_equal(person["value"], LIKED_FROM))


def _turn(person: pa.Table, liked_by_other: pa.Table) -> Turn:
    is_had = pc.is_in(liked_by_other["item_id"], value_set=person["item_id"].combine_chunks())
    fresh = liked_by_other.filter(pc.invert(is_had))
    new, rest = fresh.slice(0, NEW), fresh.slice(NEW)
    last = person["event_time"].to_numpy().max()
    later = pa.array(last + _SECOND * np.arange(1, len(new) + 1))
    new = new.set_column(new.schema.get_field_index("event_time"), "event_time", later)
    return Turn(person, new.cast(INTERACTIONS), frozenset(rest["item_id"].to_pylist()))


def measure(
    family: str, train: pa.Table, people: Sequence[Turn], settings: Mapping[str, Setting]
) -> dict[str, dict[str, float]]:
    """How well what is wanted is found, by metric: before and after, and the gain."""
    kind = families[family]
    config = kind.config(settings)
    dataset = build(train, CATALOG, kind.learns_from)
    fitted = kind.fit(dataset, config, Run())
    encoder = kind.encoder(config, fitted.tensors)

    def metrics(histories: Iterable[pa.Table]) -> NDArray[np.float64]:
        """(people, 2)"""
        found = []
        for history, turn in zip(histories, people, strict=True):
            events = history_of(history, CATALOG, kind.learns_from, items=dataset.items)
            scores = fitted.item_vectors @ encoder.encode(events)[0]
            found.append(_metrics(scores, turn, dataset.items))
        return np.array(found)

    before = metrics(turn.before for turn in people)
    after = metrics(pa.concat_tables([turn.before, turn.new]) for turn in people)
    return {
        name: _summary(before[:, column], after[:, column]) for column, name in enumerate(METRICS)
    }


def _metrics(scores: NDArray[np.float32], turn: Turn, items: Vocabulary) -> tuple[float, float]:
    """Recall at the cutoff, and the share of pairs in which what is wanted comes first.

    Of the films that the person has had neither then nor now; one that the training does not know
    counts as not found, and is in no pair.
    """
    seen = items.rows([*turn.before["item_id"].to_pylist(), *turn.new["item_id"].to_pylist()])
    is_new = np.ones(len(items), bool)
    is_new[seen[seen >= 0]] = False
    rows = items.rows(sorted(turn.wanted))
    is_wanted = np.zeros(len(items), bool)
    is_wanted[rows[rows >= 0]] = True
    order = np.argsort(-scores, kind="stable")
    wanted = is_wanted[order[is_new[order]]]
    recall = wanted[:CUTOFF].sum() / min(len(turn.wanted), CUTOFF)
    return float(recall), float((np.cumsum(wanted)[~wanted] / wanted.sum()).mean())


def _summary(before: NDArray[np.float64], after: NDArray[np.float64]) -> dict[str, float]:
    """Means over people; the error is the gain's standard error."""
    gains = after - before
    summary = {
        "before": before.mean(),
        "after": after.mean(),
        "gain": gains.mean(),
        "error": gains.std() / len(gains) ** 0.5,
    }
    return {name: round(float(value), 4) for name, value in summary.items()}


def main() -> None:
    """Measure each family, or the one that is named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path, nargs="?", default=FILE)
    parser.add_argument("--model", choices=list(families), help="this family only")
    args = parser.parse_args()
    train, people = parted(read(args.file))
    found = turns(people)
    result: dict[str, object] = {"people": len(found)}
    for family in [args.model] if args.model else families:
        with console.status(f"Training {family}"):
            result[family] = measure(family, train, found, SETTINGS.get(family, {}))
        console.print(f"{family}: {result[family]}")
    finish(result)


if __name__ == "__main__":
    main()
