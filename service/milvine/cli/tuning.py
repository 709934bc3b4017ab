"""`milvine tune`: the settings of a family that do best."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import click
from rich.console import RenderableType
from rich.table import Table

from milvine.cli.command import Remote, remote
from milvine.cli.documents import document
from milvine.cli.evaluation import HoldoutArgs, holdout_options
from milvine.cli.following import follow
from milvine.cli.output import Column, number, table
from milvine.cli.pairs import PAIR, Json, numbers_or_texts
from milvine.cli.training import FAMILIES, family_config, model_views, told_epoch
from milvine.client import Progress
from milvine.client.requests import Searched
from milvine.v1 import model_pb2, tuning_pb2


class _Range(click.ParamType[tuple[str, Searched]]):
    """A setting and where it is looked for."""

    name = "NAME=LOW:HIGH[:log]"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, Searched]:
        name, _, text = str(value).partition("=")
        low, _, rest = text.partition(":")
        high, sign, scale = rest.partition(":")
        try:
            bounds = float(low), float(high)
        except ValueError:
            self.fail(f"{value!r} is not of the form {self.name}", param, ctx)
        if scale not in ("", "log") or bool(sign) != bool(scale):
            self.fail(f"{value!r}: the scale is `log`, or left out", param, ctx)
        return name, ((*bounds, scale) if scale else bounds)


class _Choices(click.ParamType[tuple[str, Searched]]):
    """A setting and the values that are tried."""

    name = "NAME=VALUE,VALUE…"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, Searched]:
        name, _, text = str(value).partition("=")
        try:
            return name, [float(part) for part in text.split(",")]
        except ValueError:
            self.fail(f"{value!r} is not of the form {self.name}", param, ctx)


@dataclass(frozen=True, slots=True)
class TuneArgs(HoldoutArgs):
    """What `milvine tune` was asked."""

    catalog: str
    family: str
    settings: dict[str, Json]
    ranges: tuple[tuple[str, Searched], ...]
    choices: tuple[tuple[str, Searched], ...]
    trials: int
    metric: str
    cutoff: int
    event_types: tuple[str, ...]
    train_best: bool
    name: str


@click.command()
@click.argument("catalog")
@click.option("--family", type=click.Choice(FAMILIES), required=True)
@click.option(
    "--range",
    "ranges",
    type=_Range(),
    multiple=True,
    help="Look for a setting between two values, as learning_rate=1e-4:1e-1:log.",
)
@click.option(
    "--choice",
    "choices",
    type=_Choices(),
    multiple=True,
    help="Look for a setting among some values, as embedding_size=32,64,128.",
)
@click.option(
    "--set",
    "settings",
    type=PAIR,
    multiple=True,
    metavar="NAME=VALUE",
    callback=lambda _ctx, _option, pairs: numbers_or_texts(pairs),
    help="A setting that stays as it is, as epochs=20.",
)
@click.option("--trials", type=int, default=20, show_default=True, help="How many are tried.")
@click.option(
    "--metric",
    type=click.Choice(["ndcg", "recall", "mrr", "hit_rate"]),
    default="ndcg",
    show_default=True,
    help="What is made as great as can be.",
)
@click.option(
    "--cutoff", type=int, default=20, show_default=True, help="The length of lists it measures."
)
@holdout_options(may_be_none=False)
@click.option(
    "--event-type", "event_types", multiple=True, help="Learn from these only; else from all."
)
@click.option("--train", "train_best", is_flag=True, help="Train a model with the best, too.")
@click.option("--name", default="", help="A name for people of that model.")
@remote(TuneArgs, needs_worker=True)
async def tune(call: Remote, args: TuneArgs) -> None:
    """Search for the settings of a family that do best on the interactions of a CATALOG.

    Ctrl-C cancels the search.
    """
    handle = await call.client.tune(
        args.catalog,
        family_config(args.family, args.settings),
        _space((*args.ranges, *args.choices)),
        trial_count=args.trials,
        metric=args.metric,
        cutoff=args.cutoff,
        holdout=args.holdout_message(),
        event_types=args.event_types,
        seed=args.seed,
        train_best=args.train_best,
        display_name=args.name,
    )
    what = f"{args.metric}@{args.cutoff}"
    found = await follow(
        call, handle, f"Tuning {args.family}", lambda progress: _remark(progress, what, args.trials)
    )
    views: list[RenderableType] = [_trials(found, what), _best(found, args)]
    if not found.train_operation:
        call.output.show(document(found), *views)
        return
    training = call.client.operation(found.train_operation)
    model = await follow(call, training, f"Training {args.family}", told_epoch)
    if isinstance(model, model_pb2.Model):
        both = {"tuning": document(found), "model": document(model)}
        call.output.show(both, *views, *model_views(model))


def _space(pairs: Iterable[tuple[str, Searched]]) -> Mapping[str, Searched]:
    space: dict[str, Searched] = {}
    for name, searched in pairs:
        if name in space:
            raise click.UsageError(f"{name} is searched for twice")
        space[name] = searched
    return space


def _remark(progress: Progress, metric: str, count: int) -> str:
    values = [trial.value for trial in progress.trials if trial.HasField("value")]
    best = f", best {metric} {max(values):.4f}" if values else ""
    return f"{len(progress.trials)} of {count} trials{best}"


def _trials(found: tuning_pb2.Tuning, metric: str) -> Table:
    names = sorted(found.trials[0].settings)
    columns = [number("trial", style="cyan"), *map(number, names)]
    columns += [number(metric), number("seconds"), Column("failed", style="red")]
    rows = sorted(found.trials, key=lambda t: (-t.value if t.HasField("value") else 1.0, t.number))
    return table(columns, (_row(trial, names) for trial in rows))


def _row(trial: tuning_pb2.Trial, names: Iterable[str]) -> tuple[object, ...]:
    return (
        trial.number,
        *(f"{trial.settings[name]:.6g}" for name in names),
        trial.value if trial.HasField("value") else None,
        f"{trial.duration.ToTimedelta().total_seconds():.1f}",
        trial.failure,
    )


def _best(found: tuning_pb2.Tuning, args: TuneArgs) -> str:
    searched = {name: f"{value:g}" for name, value in sorted(found.best_trial.settings.items())}
    settings = {**args.settings, **searched}
    options = " ".join(f"--set {name}={value}" for name, value in settings.items())
    return f"The best: milvine train {args.catalog} --family {args.family} {options}"
