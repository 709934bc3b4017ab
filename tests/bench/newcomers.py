"""People and films of whom nothing but fields is known: `python -m tests.bench.newcomers [FOLDER]`.

A `two_tower` of default settings learns the declared fields of MovieLens 100K. A tenth of the films
is left out of training with all their ratings, then a tenth of the people. The films are ranked for
the people of the training by their fields, and what those people like by theirs. The folder has
RecBole's files (`ml-100k.inter`, `.item`, `.user`), which `make demo` and `make test` fetch.

The last line on stdout is one JSON object: recall@20 (and NDCG@20) beside chance and popularity.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyarrow import csv

from milvine.domain.catalog import Catalog, EventType, Field, FieldType, ValueMeaning
from milvine.domain.entity import FieldValue, Side
from milvine.domain.model import RankingMetrics
from milvine.models import Run, Vocabulary, history_of
from milvine.models.base import Dataset, Fitted, Histories
from milvine.models.two_tower import TwoTower, TwoTowerConfig
from milvine.text import same_encoder
from milvine.training.dataset import build, with_fields
from milvine.training.metrics import Tally
from tests.bench import taste
from tests.bench.report import console, finish

CATALOG = Catalog(
    "films",
    (EventType("rating", value_meaning=ValueMeaning.RATING, liked_from=taste.LIKED_FROM),),
    item_fields=(Field("year", FieldType.INT64), Field("genres", FieldType.STRING_LIST)),
    user_fields=(
        Field("age", FieldType.INT64),
        Field("gender", FieldType.STRING),
        Field("occupation", FieldType.STRING),
        Field("zip_code", FieldType.STRING),
    ),
)
FAMILY = TwoTower()
CUTOFF = 20


@dataclass(frozen=True, slots=True)
class World:
    """MovieLens 100K."""

    events: pa.Table
    sides: Mapping[Side, pa.Table]
    """The fields of films and people, with their `id`."""

    @classmethod
    def read(cls, folder: Path) -> World:
        """The three files of a folder."""
        films, people = (_rows(folder / f"ml-100k.{kind}") for kind in ("item", "user"))
        return cls(
            taste.read(folder / taste.FILE.name),
            {Side.ITEM: pa.table(_film_columns(films)), Side.USER: pa.table(_columns(people))},
        )

    def fields(self, side: Side, fields: Sequence[Field]) -> pa.Table:
        """Those fields of everyone of a side."""
        return self.sides[side].select(["id", *(field.name for field in fields)])

    def rows(self, side: Side, ids: Sequence[str]) -> list[dict[str, FieldValue]]:
        """The fields of each id."""
        known = {row.pop("id"): row for row in self.sides[side].to_pylist()}
        return [
            {
                n: tuple(v) if isinstance(v, list) else v
                for n, v in known[i].items()
                if v is not None
            }
            for i in ids
        ]

    def parted(self, column: str, side: Side) -> tuple[pa.Table, pa.Table]:
        """The events to learn from, and those of a tenth of a side."""
        ids = self.sides[side]["id"].to_pylist()
        out = np.random.default_rng(1).choice(ids, len(ids) // 10, replace=False).tolist()
        is_out = pc.is_in(self.events[column], value_set=pa.array(out))
        return self.events.filter(pc.invert(is_out)), self.events.filter(is_out)


@dataclass(frozen=True, slots=True, eq=False)
class Towers:
    """A fitted model and what it learned from."""

    config: TwoTowerConfig
    data: Dataset
    fitted: Fitted

    @classmethod
    def fit(cls, world: World, events: pa.Table) -> Towers:
        """Learn from events and the fields of everyone."""
        config = FAMILY.config({})
        data = build(events, CATALOG, FAMILY.learns_from)
        data = with_fields(data, FAMILY.fields(config, CATALOG), world.fields)
        return cls(config, data, FAMILY.fit(data, config, Run()))

    def users(self, histories: Histories) -> NDArray[np.float32]:
        """The vectors (users, dimension)."""
        return FAMILY.encoder(self.config, self.fitted.tensors).encode(histories)


def new_films(world: World) -> dict[str, float]:
    """How well films of fields alone are ranked for people who are known."""
    learned, held = world.parted("item_id", Side.ITEM)
    towers = Towers.fit(world, learned)
    encoder = FAMILY.item_encoder(towers.config, towers.fitted.tensors, same_encoder)
    if encoder is None:
        raise RuntimeError("the model learned no fields of films")
    ids = pc.unique(held["item_id"]).to_pylist()
    films = encoder.encode(world.rows(Side.ITEM, ids))
    liked = _liked(held, Vocabulary(ids), towers.data.users)
    found = _measured(towers.users(towers.data.histories) @ films.T, liked)
    return {
        "films": len(films),
        "recall@20": round(found.recall, 4),
        "chance": round(CUTOFF / len(films), 4),
    }


def new_people(world: World) -> dict[str, float]:
    """How well films are ranked for people of fields alone."""
    learned, held = world.parted("user_id", Side.USER)
    towers = Towers.fit(world, learned)
    ids = pc.unique(held["user_id"]).to_pylist()
    liked = _liked(held, towers.data.items, Vocabulary(ids))
    encoding = FAMILY.encodings(towers.fitted.tensors, same_encoder)[Side.USER]
    nothing = liked.keep(np.zeros(len(liked.items), bool))
    blank = replace(nothing, features=encoding.of(world.rows(Side.USER, ids)))
    found = _measured(towers.users(blank) @ towers.fitted.item_vectors.T, liked)
    counts = np.bincount(towers.data.histories.items, minlength=len(towers.data.items))
    popular = _measured(np.tile(counts.astype(np.float32), (len(ids), 1)), liked)
    return {
        "people": len(ids),
        "recall@20": round(found.recall, 4),
        "ndcg@20": round(found.ndcg, 4),
        "popularity_recall@20": round(popular.recall, 4),
        "popularity_ndcg@20": round(popular.ndcg, 4),
    }


def _liked(events: pa.Table, items: Vocabulary, users: Vocabulary) -> Histories:
    return history_of(events, CATALOG, FAMILY.learns_from, items=items, users=users)


def _measured(scores: NDArray[np.float32], liked: Histories) -> RankingMetrics:
    """The metrics at the cutoff over those who like any; `scores` is (users, items)."""
    known = np.flatnonzero(liked.lengths > 0)
    ranked = np.argsort(-scores[known], axis=1, kind="stable")[:, :CUTOFF]
    tally = Tally((CUTOFF,), scores.shape[1])
    tally.add(ranked, liked.take(known))
    (found,) = tally.metrics()
    return found


def _rows(path: Path) -> pa.Table:
    return csv.read_csv(path, parse_options=csv.ParseOptions(delimiter="\t", quote_char=False))


def _columns(table: pa.Table) -> dict[str, pa.ChunkedArray]:
    """The columns by their plain names, `user_id:token` as `id`; texts where they are tokens."""
    names = [name.partition(":")[0] for name in table.column_names]
    columns = dict(zip(["id", *names[1:]], table.columns, strict=True))
    texts = {"id", "gender", "occupation", "zip_code"} & columns.keys()
    return {n: c.cast(pa.string()) if n in texts else c for n, c in columns.items()}


def _film_columns(table: pa.Table) -> dict[str, pa.ChunkedArray | pa.Array]:
    ids, _, years, genres = (table[place].cast(pa.string()) for place in range(4))
    numbers = [int(year) if year and year.isdecimal() else None for year in years.to_pylist()]
    lists = [(text or "").split() for text in genres.to_pylist()]
    return {
        "id": ids,
        "year": pa.array(numbers, pa.int64()),
        "genres": pa.array(lists, pa.list_(pa.string())),
    }


def main() -> None:
    """Read the arguments and print the figures."""
    parser = argparse.ArgumentParser(prog="bench-newcomers", description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", default=taste.FILE.parent)
    world = World.read(parser.parse_args().folder)
    told = {"new_films": new_films(world), "new_people": new_people(world)}
    console.print(told)
    finish(told)


if __name__ == "__main__":
    main()
