"""What is held out, as options, and evaluations as tables."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

import click
from rich.table import Table

from milvine.cli.output import Column, number, table
from milvine.cli.pairs import whole_numbers
from milvine.client.types import timestamp
from milvine.v1 import model_pb2

F = TypeVar("F", bound=Callable[..., object])
METRICS = ("recall", "ndcg", "mrr", "hit_rate", "coverage", "novelty")
_METHODS = ("latest", "random", "after", "given", "none")


def _moment(_ctx: click.Context, _option: click.Parameter, text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        return datetime.fromisoformat(text).astimezone()
    except ValueError as exc:
        raise click.BadParameter(f"{text!r} is no time such as 2026-01-31T12:00Z") from exc


@dataclass(frozen=True, slots=True)
class HoldoutArgs:
    """What a command was told to hold out."""

    holdout: str
    fraction: float | None
    cutoffs: list[int]
    seed: int
    start: datetime | None
    holdout_event_types: tuple[str, ...]

    def holdout_message(self) -> model_pb2.Holdout:
        """What is held out, and how it is measured."""
        return model_pb2.Holdout(
            method=model_pb2.Holdout.Method.Value(f"METHOD_{self.holdout.upper()}"),
            fraction=self.fraction,
            cutoffs=self.cutoffs,
            seed=self.seed,
            start_time=timestamp(self.start),
            event_types=self.holdout_event_types,
        )


def holdout_options(*, may_be_none: bool) -> Callable[[F], F]:
    """The options that become `HoldoutArgs`; `may_be_none` says whether nothing may be held out."""
    options = (
        click.option(
            "--holdout",
            type=click.Choice(_METHODS if may_be_none else _METHODS[:-1]),
            default="latest",
            show_default=True,
            help="Which items measure the model: each user's latest, or some at random; what "
            "happened after --from; or what --holdout-event-type gives.",
        ),
        click.option(
            "--fraction", type=float, help="The share of each user's items; else one item."
        ),
        click.option(
            "--cutoffs",
            default="10,20",
            show_default=True,
            callback=lambda _ctx, _option, text: whole_numbers(text),
            help="The lengths of list to measure at.",
        ),
        click.option(
            "--seed", type=int, default=0, show_default=True, help="The seed of the holdout."
        ),
        click.option(
            "--from",
            "start",
            metavar="TIME",
            callback=_moment,
            help="With `after`: when it begins, as 2026-01-31T12:00Z.",
        ),
        click.option(
            "--holdout-event-type",
            "holdout_event_types",
            multiple=True,
            help="With `given`: the event types that are held out.",
        ),
    )

    def decorate(command: F) -> F:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def evaluation_tables(evaluation: model_pb2.Evaluation, family: str) -> list[Table]:
    """The metrics of a model beside popularity, as a whole and by segment."""
    columns = [Column("", style="cyan"), *(number(name.replace("_", " ")) for name in METRICS)]
    title = f"Held-out metrics, means over {evaluation.user_count:,} users"
    views = [table(columns, _rows(evaluation, family), title=title)]
    if evaluation.segments:
        title = f"By segment, at {evaluation.model[0].cutoff}"
        views.append(table(_SEGMENT_COLUMNS, map(_segment_row, evaluation.segments), title=title))
    return views


def live_table(evaluation: model_pb2.Evaluation) -> Table:
    """What the live index found beside exact scores."""
    live = evaluation.live
    title = f"Release {live.release_id}: the index finds {live.index_recall:.2%} of the exact best"
    columns = [Column("", style="cyan"), *(number(name.replace("_", " ")) for name in METRICS)]
    return table(columns, _live_rows(evaluation), title=title)


def novelty(metrics: model_pb2.RankingMetrics) -> float | None:
    """The novelty, where it was measured."""
    return metrics.novelty if metrics.HasField("novelty") else None


def segment_name(segment: model_pb2.SegmentEvaluation) -> str:
    """The segment in words."""
    name = model_pb2.SegmentEvaluation.Segment.Name(segment.segment)
    return name.removeprefix("SEGMENT_").replace("_", " ").lower()


_SEGMENT_COLUMNS = (
    *(Column("", style="cyan"), number("users"), number("held out")),
    *(number("recall"), number("ndcg"), number("popularity: recall"), number("ndcg")),
)


def _rows(evaluation: model_pb2.Evaluation, family: str) -> Iterator[tuple[object, ...]]:
    for ours, popular in zip(evaluation.model, evaluation.popularity, strict=True):
        for name, metrics in ((family, ours), ("popularity", popular)):
            yield (f"{name} @{metrics.cutoff}", *_values(metrics))


def _live_rows(evaluation: model_pb2.Evaluation) -> Iterator[tuple[object, ...]]:
    for exact, live in zip(evaluation.model, evaluation.live.metrics, strict=True):
        for name, metrics in (("exact", exact), ("live", live)):
            yield (f"{name} @{metrics.cutoff}", *_values(metrics))


def _values(metrics: model_pb2.RankingMetrics) -> Iterator[float | None]:
    for name in METRICS[:-1]:
        yield getattr(metrics, name)
    yield novelty(metrics)


def _segment_row(segment: model_pb2.SegmentEvaluation) -> tuple[object, ...]:
    ours, popular = segment.model[0], segment.popularity[0]
    return (
        segment_name(segment),
        f"{segment.user_count:,}",
        f"{segment.held_out_count:,}",
        *(ours.recall, ours.ndcg, popular.recall, popular.ndcg),
    )
