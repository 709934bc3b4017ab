"""`milvine train | models`: models, and how well they do."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import click
from google.protobuf import json_format
from rich.table import Table

from milvine.cli.command import Remote, remote
from milvine.cli.documents import document
from milvine.cli.following import follow
from milvine.cli.output import Column, number, table
from milvine.cli.pairs import PAIR, Json, numbers_or_texts, whole_numbers
from milvine.client import Progress
from milvine.client.types import moment
from milvine.domain.errors import InvalidArgument
from milvine.v1 import model_pb2

_FAMILIES = tuple(model_pb2.ModelConfig.DESCRIPTOR.fields_by_name)
_METRICS = ("recall", "ndcg", "mrr", "hit_rate", "coverage")


@dataclass(frozen=True, slots=True)
class TrainArgs:
    """What `milvine train` was asked."""

    catalog: str
    family: str
    settings: dict[str, Json]
    holdout: str
    fraction: float | None
    cutoffs: list[int]
    seed: int
    event_types: tuple[str, ...]
    name: str

    def holdout_message(self) -> model_pb2.Holdout:
        """What is held out, and how it is measured."""
        return model_pb2.Holdout(
            method=model_pb2.Holdout.Method.Value(f"METHOD_{self.holdout.upper()}"),
            fraction=self.fraction,
            cutoffs=self.cutoffs,
            seed=self.seed,
        )


@click.command()
@click.argument("catalog")
@click.option("--family", type=click.Choice(_FAMILIES), required=True)
@click.option(
    "--set",
    "settings",
    type=PAIR,
    multiple=True,
    metavar="NAME=VALUE",
    callback=lambda _ctx, _option, pairs: numbers_or_texts(pairs),
    help="A setting of the family, as epochs=20.",
)
@click.option(
    "--holdout",
    type=click.Choice(["latest", "random", "none"]),
    default="latest",
    show_default=True,
    help="Which items of each user measure the model.",
)
@click.option("--fraction", type=float, help="The share of each user's items; else one item.")
@click.option(
    "--cutoffs",
    default="10,20",
    show_default=True,
    callback=lambda _ctx, _option, text: whole_numbers(text),
    help="The lengths of list to measure at.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="The seed of the holdout.")
@click.option(
    "--event-type", "event_types", multiple=True, help="Learn from these only; else from all."
)
@click.option("--name", default="", help="A name for people.")
@remote(TrainArgs, needs_worker=True)
async def train(call: Remote, args: TrainArgs) -> None:
    """Train a model on the interactions of a CATALOG, and measure it on what was held out.

    Ctrl-C cancels the training.
    """
    handle = await call.client.train(
        args.catalog,
        config=_config(args.family, args.settings),
        holdout=args.holdout_message(),
        event_types=args.event_types,
        display_name=args.name,
    )
    model = await follow(call, handle, f"Training {args.family}", _remark)
    learned = (
        f"Model [cyan]{model.model_id}[/] learned {model.dimension} dimensions of "
        f"{model.user_count:,} users and {model.item_count:,} items from "
        f"{model.pair_count:,} pairs in {model.train_duration.ToTimedelta().total_seconds():.1f} s."
    )
    views = [_metrics(model, args.family)] if model.HasField("evaluation") else []
    call.output.show(document(model), *views, learned)


@dataclass(frozen=True, slots=True)
class ModelsArgs:
    """What `milvine models` was asked."""

    catalog: str


@click.command()
@click.argument("catalog")
@remote(ModelsArgs)
async def models(call: Remote, args: ModelsArgs) -> None:
    """List the models of a CATALOG, newest first."""
    found = [model async for model in call.client.models(args.catalog)]
    columns = [
        *(Column("model", style="cyan"), Column("name"), Column("family"), number("users")),
        *(number("items"), number("pairs"), number("dimensions")),
        *(Column("measured"), Column("trained")),
    ]
    call.output.show(
        {"models": [document(model) for model in found]}, table(columns, map(_row, found))
    )


def _remark(progress: Progress) -> str:
    if not progress.epochs:
        return ""
    last = progress.epochs[-1]
    told = f"epoch {last.epoch}/{last.epoch_count}, loss {last.loss:.4f}"
    return f"{told}, ndcg@20 {last.metric:.4f}" if last.HasField("metric") else told


def _metrics(model: model_pb2.Model, family: str) -> Table:
    evaluation = model.evaluation
    columns = [Column("", style="cyan"), *(number(name.replace("_", " ")) for name in _METRICS)]
    title = f"Held-out metrics, means over {evaluation.user_count:,} users"
    return table(columns, _metric_rows(evaluation, family), title=title)


def _metric_rows(evaluation: model_pb2.Evaluation, family: str) -> Iterator[tuple[object, ...]]:
    for ours, popular in zip(evaluation.model, evaluation.popularity, strict=True):
        for name, metrics in ((family, ours), ("popularity", popular)):
            values = (getattr(metrics, metric) for metric in _METRICS)
            yield (f"{name} @{metrics.cutoff}", *values)


def _row(model: model_pb2.Model) -> tuple[object, ...]:
    return (
        model.model_id,
        model.display_name,
        model.config.WhichOneof("family"),
        f"{model.user_count:,}",
        f"{model.item_count:,}",
        f"{model.pair_count:,}",
        model.dimension,
        _measured(model),
        moment(model.create_time),
    )


def _measured(model: model_pb2.Model) -> str:
    if not model.evaluation.model:
        return ""
    first = model.evaluation.model[0]
    return f"recall@{first.cutoff} {first.recall:.4f}, ndcg@{first.cutoff} {first.ndcg:.4f}"


def _config(family: str, settings: dict[str, Json]) -> model_pb2.ModelConfig:
    config = model_pb2.ModelConfig()
    known = list(getattr(config, family).DESCRIPTOR.fields_by_name)
    for name in settings:
        if name not in known:
            raise InvalidArgument.at(
                f"--set {name}", f"is not a setting of {family}; settings are: {', '.join(known)}"
            )
    try:
        json_format.ParseDict({family: settings}, config)
    except json_format.ParseError as exc:
        raise InvalidArgument.at("--set", str(exc)) from exc
    return config
