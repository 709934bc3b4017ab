"""How good recommendations are: trained, published and asked for as by any client.

    python -m tests.bench.quality data/gowalla --model als --vectors lite

The data goes in through the API, a worker trains and publishes, what users did after training is
recorded where the protocol has such events, and the lists of all test users come from the live
index over gRPC. The same lists by exact scoring of the model's artifact tell what the index loses,
and lists by popularity what the model gains. The last line on stdout is one JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import random
import statistics
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeVar

import pyarrow as pa
from google.protobuf.duration_pb2 import Duration
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from milvine.client import Client, Interaction, OperationHandle
from milvine.models import families
from milvine.models.base import Feedback
from milvine.training import ranking_metrics
from milvine.v1 import catalog_pb2, model_pb2, release_pb2
from tests.bench import datasets
from tests.bench.datasets import Split
from tests.bench.deployment import Deployment, Engine, deployment
from tests.bench.exact import ExactRanking
from tests.bench.report import Stopwatch, console, finish, stop_cleanly_on_sigterm

CATALOG = "bench"
CONFIGS = Path(__file__).parent / "configs"
BATCH = 256
"""Users of a request: as many as one may have."""
IN_FLIGHT = 2
FORETOLD = 5_000
"""Of so many users ratings are foretold."""
TRAIN_S, PUBLISH_S, CALL_S = 1_800.0, 900.0, 120.0

R = TypeVar("R", model_pb2.Model, release_pb2.Release)


@dataclass(frozen=True, slots=True)
class Trained:
    """A model in service, and what it took to get there."""

    model: model_pb2.Model
    publish_seconds: float

    @property
    def seconds_per_epoch(self) -> float:
        """The mean over the epochs."""
        epochs = self.model.epochs
        return sum(seconds(epoch.duration) for epoch in epochs) / len(epochs)


def seconds(duration: Duration) -> float:
    """The seconds of a duration."""
    return duration.ToTimedelta().total_seconds()


@dataclass(frozen=True, slots=True)
class Steps:
    """The bars that people watch."""

    progress: Progress

    def begin(self, what: str, total: float) -> TaskID:
        """Begin a step; a log gets a line, for bars show on terminals only."""
        if not console.is_terminal:
            console.print(what)
        return self.progress.add_task(what, total=total)

    async def follow(self, what: str, operation: OperationHandle[R], timeout_s: float) -> R:
        """Follow an operation to its end, and return what it made."""
        bar = self.begin(what, 1.0)
        async with asyncio.timeout(timeout_s):
            async for now in operation.watch():
                self.progress.update(bar, completed=now.progress)
            return await operation.result()


async def bring_in(client: Client, split: Split, steps: Steps) -> None:
    """Create the catalog and stream the training part into it."""
    event_type = catalog_pb2.EventType(name="interaction", liked_from=split.liked_from)
    if split.liked_from is not None:
        event_type.value_meaning = catalog_pb2.EventType.VALUE_MEANING_RATING
    await client.create_catalog(CATALOG, event_types=[event_type])
    await _record(client, split.train, steps, "bringing in interactions")


async def fold_in(client: Client, split: Split, steps: Steps) -> None:
    """Record what users did after training."""
    if len(split.folded_in):
        await _record(client, split.folded_in, steps, "folding in", after=len(split.train))


async def _record(
    client: Client, events: pa.Table, steps: Steps, what: str, *, after: int = 0
) -> None:
    bar = steps.begin(what, len(events))
    async for recorded in client.stream_interactions(CATALOG, _interactions(events, after)):
        steps.progress.advance(bar, recorded.written + recorded.duplicates)


def _interactions(events: pa.Table, after: int) -> Iterable[Interaction]:
    users, items = (events[name].to_pylist() for name in ("user_id", "item_id"))
    has_ratings = "rating" in events.column_names
    values = events["rating"].to_pylist() if has_ratings else itertools.repeat(None, len(events))
    start = datetime(2020, 1, 1, tzinfo=UTC) + timedelta(seconds=after)
    # The place in the file is the time, for formats that are in order.
    for row, (user, item, value) in enumerate(zip(users, items, values, strict=True)):
        yield Interaction(user, item, value=value, event_time=start + timedelta(seconds=row))


async def put_into_service(
    client: Client, family: str, settings: Mapping[str, object], steps: Steps
) -> Trained:
    """Train on everything that is there, and publish."""
    started = await client.train(CATALOG, **{family: settings}, holdout={"method": "METHOD_NONE"})
    model = await steps.follow("training", started, TRAIN_S)
    with Stopwatch() as publishing:
        # The bench measures what the index loses, so it publishes whatever that is.
        order = await client.publish(model.model_id, min_index_recall=0.0)
        await steps.follow("publishing", order, PUBLISH_S)
    return Trained(model, publishing.seconds)


async def foretell(client: Client, split: Split, steps: Steps) -> dict[str, float]:
    """How far foretold ratings are from those that were given: root mean squares.

    Beside the service's scores stand the mean rating, and that of the item.
    """
    asked = list(split.foretold)
    asked = random.Random(0).sample(asked, min(FORETOLD, len(asked)))  # noqa: S311 - no secret
    bar = steps.begin("foretelling ratings", len(asked))
    users = iter(asked)
    pairs: list[tuple[str, float, float]] = []

    async def ask() -> None:
        for user in users:  # shared: each user is asked for once
            given = split.foretold[user]
            ranked = await client.rank_items(CATALOG, given, user=user)
            pairs.extend((hit.id, hit.score, given[hit.id]) for hit in ranked.hits)
            steps.progress.advance(bar)

    async with asyncio.TaskGroup() as group:
        for _ in range(IN_FLIGHT):
            group.create_task(ask())
    means = split.train.group_by("item_id").aggregate([("rating", "mean")]).to_pydict()
    of_item = dict(zip(means["item_id"], means["rating_mean"], strict=True))
    mean = statistics.fmean(split.train["rating"].to_pylist())
    return {
        "model": _off(score - given for _, score, given in pairs),
        "item_mean": _off(of_item.get(item, mean) - given for item, _, given in pairs),
        "mean": _off(mean - given for _, _, given in pairs),
        "ratings": len(pairs),
    }


def _off(errors: Iterable[float]) -> float:
    return round(statistics.fmean(error * error for error in errors) ** 0.5, 4)


async def live_lists(
    client: Client, users: Sequence[str], count: int, steps: Steps
) -> list[list[str]]:
    """The lists of users from the live index, a few requests at a time."""
    bar = steps.begin("asking the live index", len(users))
    starts = iter(range(0, len(users), BATCH))
    found: dict[int, list[list[str]]] = {}

    async def ask() -> None:
        for start in starts:  # shared: each request is sent once
            some = users[start : start + BATCH]
            replies = await client.batch_recommend(CATALOG, some, page_size=count)
            found[start] = [[hit.id for hit in reply.hits] for reply in replies]
            steps.progress.advance(bar, len(some))

    async with asyncio.TaskGroup() as group:
        for _ in range(IN_FLIGHT):
            group.create_task(ask())
    return [one for start in sorted(found) for one in found[start]]


def exact_lists(
    deployed: Deployment, model_id: str, users: Sequence[str], count: int, steps: Steps
) -> tuple[list[list[str]], list[list[str]]]:
    """The lists of users by exact scores, and by popularity."""
    ranking = ExactRanking.of(deployed.settings, model_id, users)
    bar = steps.begin("ranking exactly", 2 * len(users))

    def drain(batches: Iterator[list[list[str]]]) -> list[list[str]]:
        lists: list[list[str]] = []
        for some in batches:
            lists += some
            steps.progress.advance(bar, len(some))
        return lists

    return drain(ranking.by_score(count)), drain(ranking.by_popularity(count))


def figures(split: Split, lists: Sequence[Sequence[str]]) -> dict[str, float]:
    """The protocol's metrics of lists, in the order of `split.held_out`."""
    (found,) = ranking_metrics(
        lists, list(split.held_out.values()), cutoffs=[split.cutoff], item_count=split.items
    )
    return {
        f"{name}@{split.cutoff}": round(getattr(found, field), 6)
        for name, field in split.metrics.items()
    }


def settings_for(folder: Path, split: Split, family: str) -> dict[str, object]:
    """The settings tuned for a data set, else for another of its format, else the defaults."""
    for name in (folder.resolve().name, split.format):
        path = CONFIGS / f"{name}_{family}.json"
        if path.is_file():
            console.print(f"settings: {path.name}")
            return dict(json.loads(path.read_text()))
    console.print(f"settings: the defaults of {family}")
    return {}


async def measure(folder: Path, family: str, engine: Engine, steps: Steps) -> dict[str, object]:
    """Run the whole benchmark."""
    split = datasets.read(folder)
    settings = settings_for(folder, split, family)
    users = list(split.held_out)
    with tempfile.TemporaryDirectory() as home, deployment(Path(home), engine) as deployed:
        async with Client(deployed.address, timeout_s=CALL_S) as client:
            await bring_in(client, split, steps)
            trained = await put_into_service(client, family, settings, steps)
            await fold_in(client, split, steps)
            live = await live_lists(client, users, split.cutoff, steps)
            of_ratings = families[family].learns_from is Feedback.EXPLICIT
            has_ratings = of_ratings and bool(split.foretold)
            rmse = {"rmse": await foretell(client, split, steps)} if has_ratings else {}
        model_id = trained.model.model_id
        exact, popular = exact_lists(deployed, model_id, users, split.cutoff, steps)
    return {
        "model": family,
        "users": len(users),
        "items": split.items,
        "live": figures(split, live),
        "exact": figures(split, exact),
        "popularity": figures(split, popular),
        **rmse,
        "train_seconds": round(seconds(trained.model.train_duration), 2),
        "publish_seconds": round(trained.publish_seconds, 2),
        "seconds_per_epoch": round(trained.seconds_per_epoch, 3),
    }


def main() -> None:
    """Read the arguments and print the figures."""
    parser = argparse.ArgumentParser(prog="bench-quality", description=__doc__)
    parser.add_argument("data", type=Path, nargs="?", default=datasets.default_folder())
    parser.add_argument("--model", default="als", help="the family of models")
    parser.add_argument("--vectors", type=Engine, choices=list(Engine), default=Engine.LITE)
    arguments = parser.parse_args()
    stop_cleanly_on_sigterm()
    columns = (TextColumn("{task.description:<24}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        result = asyncio.run(
            measure(arguments.data, arguments.model, arguments.vectors, Steps(progress))
        )
    finish(result)


if __name__ == "__main__":
    main()
