"""`milvine train | models`: models, and how well they do."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import click
from google.protobuf import json_format
from rich.console import RenderableType

from milvine.cli.command import Remote, remote
from milvine.cli.documents import document
from milvine.cli.evaluation import HoldoutArgs, evaluation_tables, holdout_options
from milvine.cli.following import follow
from milvine.cli.output import Column, number, table
from milvine.cli.pairs import PAIR, Json, numbers_or_texts
from milvine.client import Progress
from milvine.client.types import moment
from milvine.domain.errors import InvalidArgument
from milvine.v1 import model_pb2

FAMILIES = tuple(model_pb2.ModelConfig.DESCRIPTOR.fields_by_name)


@dataclass(frozen=True, slots=True)
class TrainArgs(HoldoutArgs):
    """What `milvine train` was asked."""

    catalog: str
    family: str
    settings: dict[str, Json]
    event_types: tuple[str, ...]
    name: str
    processes: int


@click.command()
@click.argument("catalog")
@click.option("--family", type=click.Choice(FAMILIES), required=True)
@click.option(
    "--set",
    "settings",
    type=PAIR,
    multiple=True,
    metavar="NAME=VALUE",
    callback=lambda _ctx, _option, pairs: numbers_or_texts(pairs),
    help="A setting of the family, as epochs=20.",
)
@holdout_options(may_be_none=True)
@click.option(
    "--event-type", "event_types", multiple=True, help="Learn from these only; else from all."
)
@click.option("--name", default="", help="A name for people.")
@click.option(
    "--processes",
    type=int,
    default=1,
    show_default=True,
    metavar="N",
    help="The processes that train together; not for als and ratings_mf.",
)
@remote(TrainArgs, needs_worker=True)
async def train(call: Remote, args: TrainArgs) -> None:
    """Train a model on the interactions of a CATALOG, and measure it on what was held out.

    Ctrl-C cancels the training.
    """
    handle = await call.client.train(
        args.catalog,
        config=family_config(args.family, args.settings),
        holdout=args.holdout_message(),
        event_types=args.event_types,
        display_name=args.name,
        process_count=args.processes,
    )
    model = await follow(call, handle, f"Training {args.family}", told_epoch)
    call.output.show(document(model), *model_views(model))


def model_views(model: model_pb2.Model) -> Iterator[RenderableType]:
    """How well a model did, and what it learned."""
    if model.HasField("evaluation"):
        yield from evaluation_tables(model.evaluation, model.config.WhichOneof("family") or "")
    yield (
        f"Model [cyan]{model.model_id}[/] learned {model.dimension} dimensions of "
        f"{model.user_count:,} users and {model.item_count:,} items from "
        f"{model.pair_count:,} pairs in {model.train_duration.ToTimedelta().total_seconds():.1f} s."
    )


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


def told_epoch(progress: Progress) -> str:
    """What the last epoch of a training says."""
    if not progress.epochs:
        return ""
    last = progress.epochs[-1]
    told = f"epoch {last.epoch}/{last.epoch_count}, loss {last.loss:.4f}"
    return f"{told}, ndcg@20 {last.metric:.4f}" if last.HasField("metric") else told


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
    how = "diverged, " * bool(model.divergence)
    return f"{how}recall@{first.cutoff} {first.recall:.4f}, ndcg@{first.cutoff} {first.ndcg:.4f}"


def family_config(family: str, settings: dict[str, Json]) -> model_pb2.ModelConfig:
    """The config of a family with some settings."""
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
