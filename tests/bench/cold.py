"""How well items are recommended that nobody has had to do with yet.

    python -m tests.bench.cold data/goodbooks --model als --encoder hashing

A tenth of the books is drawn, by seed 0 from the ids in order, and all of their ratings are held
out. Titles and authors of all books, and the other ratings as interactions, go in through the API;
a worker trains and publishes. Each reader who rated held-out books and others is then recommended
20 of the held-out ones, by a filter, from the live index over gRPC. Recall@20 is the share of the
reader's held-out books that are among them, NDCG@20 has binary gains and an ideal list of min(20,
held-out books); both are means over readers. Beside them stand lists by the popularity of the
first author's other books, and lists at random. The last line on stdout is one JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from milvine.client import Client, Interaction, Item
from milvine.training import ranking_metrics
from milvine.v1 import catalog_pb2
from tests.bench.datasets import rows_of
from tests.bench.deployment import Engine, deployment
from tests.bench.quality import BATCH, CALL_S, CATALOG, Steps, put_into_service, seconds
from tests.bench.report import console, finish, stop_cleanly_on_sigterm

RATINGS = "ratings.csv.gz"
CUTOFF = 20
COLD_SHARE = 0.1
ASKED_OF_ALL = 2_048
"""Readers whose lists of all books are looked at, for how many of these are held out."""
_IN_FLIGHT = 2


@dataclass(frozen=True, slots=True, eq=False)
class Books:
    """Books and who rated them, with some held out."""

    titles: Mapping[str, str]
    authors: Mapping[str, str]
    cold: Sequence[str]
    """The books that nobody has rated, as far as the service knows."""
    train: Sequence[tuple[str, str]]
    """Pairs of reader and book."""
    held_out: Mapping[str, frozenset[str]]
    """The held-out books of each reader who has others, too."""

    @classmethod
    def read(cls, folder: Path) -> Books:
        """Read goodbooks-10k from a folder and hold a tenth of the books out."""
        books = list(rows_of(folder / "books.csv.gz"))
        titles = {book["id"]: book["title"] for book in books}
        authors = {book["id"]: book["authors"] for book in books}
        count = round(COLD_SHARE * len(titles))
        drawn = np.random.default_rng(0).choice(sorted(titles), count, replace=False)
        cold = frozenset(drawn.tolist())
        # Some pairs stand twice.
        rated = dict.fromkeys((r["user_id"], r["book_id"]) for r in rows_of(folder / RATINGS))
        train = [(reader, book) for reader, book in rated if book not in cold]
        known = {reader for reader, _ in train}
        held_out: defaultdict[str, set[str]] = defaultdict(set)
        for reader, book in rated:
            if book in cold and reader in known:
                held_out[reader].add(book)
        wanted = {reader: frozenset(found) for reader, found in sorted(held_out.items())}
        return cls(titles, authors, sorted(cold), train, wanted)

    def by_author(self) -> list[str]:
        """The cold books, those first whose first author's other books were rated most."""
        counts = Counter(book for _, book in self.train)
        of_author: Counter[str] = Counter()
        for book, count in counts.items():
            of_author[_first(self.authors[book])] += count
        return sorted(self.cold, key=lambda book: -of_author[_first(self.authors[book])])


def _first(authors: str) -> str:
    return authors.split(",", maxsplit=1)[0].strip()


async def bring_in(client: Client, books: Books, steps: Steps) -> None:
    """Create the catalog and bring in all books and the ratings that are not held out."""
    text = catalog_pb2.Field.TYPE_STRING
    await client.create_catalog(
        CATALOG,
        event_types=["rating"],
        item_fields=[
            catalog_pb2.Field(name="title", type=text, embed_text=True),
            catalog_pb2.Field(name="authors", type=text, embed_text=True),
            catalog_pb2.Field(name="is_cold", type=catalog_pb2.Field.TYPE_BOOL),
        ],
    )
    cold = frozenset(books.cold)
    items = [
        Item(i, {"title": title, "authors": books.authors[i], "is_cold": i in cold})
        for i, title in books.titles.items()
    ]
    await client.upsert_items(CATALOG, items)
    bar = steps.begin("bringing in ratings", len(books.train))
    start = datetime(2020, 1, 1, tzinfo=UTC)
    events = (
        Interaction(reader, book, event_time=start + timedelta(seconds=row))
        for row, (reader, book) in enumerate(books.train)
    )
    async for recorded in client.stream_interactions(CATALOG, events):
        steps.progress.advance(bar, recorded.written + recorded.duplicates)


async def lists(
    client: Client, readers: Sequence[str], what: str, steps: Steps, *, only: str = ""
) -> list[list[str]]:
    """The lists of readers from the live index, under a filter."""
    bar = steps.begin(what, len(readers))
    starts = iter(range(0, len(readers), BATCH))
    found: dict[int, list[list[str]]] = {}

    async def ask() -> None:
        for start in starts:  # shared: each request is sent once
            some = readers[start : start + BATCH]
            replies = await client.batch_recommend(CATALOG, some, page_size=CUTOFF, filter=only)
            found[start] = [[hit.id for hit in reply.hits] for reply in replies]
            steps.progress.advance(bar, len(some))

    async with asyncio.TaskGroup() as group:
        for _ in range(_IN_FLIGHT):
            group.create_task(ask())
    return [one for start in sorted(found) for one in found[start]]


def figures(books: Books, found: Sequence[Sequence[str]]) -> dict[str, float]:
    """Recall and NDCG of lists, in the order of `held_out`."""
    (metrics,) = ranking_metrics(
        found, list(books.held_out.values()), cutoffs=[CUTOFF], item_count=len(books.cold)
    )
    return {
        f"recall@{CUTOFF}": round(metrics.recall, 6),
        f"ndcg@{CUTOFF}": round(metrics.ndcg, 6),
    }


def at_random(books: Books) -> list[list[str]]:
    """Lists of held-out books by lot."""
    rng = np.random.default_rng(1)
    cold = np.array(books.cold)
    return [rng.choice(cold, CUTOFF, replace=False).tolist() for _ in books.held_out]


async def measure(folder: Path, family: str, encoder: str, steps: Steps) -> dict[str, object]:
    """Run the whole benchmark."""
    books = Books.read(folder)
    readers = list(books.held_out)
    settings = {"MILVINE_TEXT_ENCODER": encoder}
    with (
        tempfile.TemporaryDirectory() as home,
        deployment(Path(home), Engine.LITE, environment=settings) as deployed,
    ):
        async with Client(deployed.address, timeout_s=CALL_S) as client:
            await bring_in(client, books, steps)
            trained = await put_into_service(client, family, {}, steps)
            cold = await lists(
                client, readers, "asking for new books", steps, only="is_cold == true"
            )
            some = readers[:: max(1, len(readers) // ASKED_OF_ALL)]
            every = await lists(client, some, "asking for all books", steps)
    hybrid, random = figures(books, cold), figures(books, at_random(books))
    by_author = figures(books, [books.by_author()[:CUTOFF]] * len(readers))
    recall = f"recall@{CUTOFF}"
    listed = [book for one in every for book in one]
    return {
        "model": family,
        "text_encoder": encoder,
        "users": len(readers),
        "items": len(books.titles),
        "cold_items": len(books.cold),
        "hybrid": hybrid,
        "popularity_by_author": by_author,
        "random": random,
        "times_popularity_by_author": round(hybrid[recall] / by_author[recall], 2),
        "times_random": round(hybrid[recall] / random[recall], 2),
        "explained_variance": round(trained.model.content_map.explained_variance, 4),
        "cold_share_of_lists": round(np.isin(listed, books.cold).mean(), 4),
        "train_seconds": round(seconds(trained.model.train_duration), 2),
        "publish_seconds": round(trained.publish_seconds, 2),
    }


def main() -> None:
    """Read the arguments and print the figures."""
    parser = argparse.ArgumentParser(prog="bench-cold", description=__doc__)
    parser.add_argument("data", type=Path, help="a folder of goodbooks-10k")
    parser.add_argument("--model", default="als", help="the family of models")
    parser.add_argument("--encoder", default="hashing", help="what reads the texts")
    arguments = parser.parse_args()
    stop_cleanly_on_sigterm()
    columns = (TextColumn("{task.description:<24}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        result = asyncio.run(
            measure(arguments.data, arguments.model, arguments.encoder, Steps(progress))
        )
    finish(result)


if __name__ == "__main__":
    main()
