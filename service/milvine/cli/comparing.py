"""`milvine compare`: models side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import click
from rich.table import Table

from milvine.cli.command import Remote, remote
from milvine.cli.documents import document
from milvine.cli.evaluation import METRICS, novelty, segment_name
from milvine.cli.output import Column, number, table
from milvine.v1 import model_pb2

FLOAT_BYTES = 4


@dataclass(frozen=True, slots=True)
class Row:
    """A figure of each model; None where a model does not have it."""

    name: str
    values: tuple[float | None, ...]
    shown: tuple[str, ...]
    best: int | None
    """Which model is better than all others; None where none is, or better has no meaning."""


@dataclass(frozen=True, slots=True)
class CompareArgs:
    """What `milvine compare` was asked."""

    models: tuple[str, ...]


@click.command()
@click.argument("models", nargs=-1, required=True, metavar="MODEL…")
@remote(CompareArgs)
async def compare(call: Remote, args: CompareArgs) -> None:
    """Print MODELs side by side, the best figure of each row marked with a *.

    Only what was measured alike is compared: `milvine evaluate` measures a model again.
    """
    models = [await call.client.get_model(model_id) for model_id in args.models]
    strangers = measured_otherwise(models)
    rows = [*figures(models, marked=not strangers), *costs(models)]
    result = {
        "models": [document(model) for model in models],
        "measured_otherwise": strangers,
        "rows": [
            {"name": row.name, "values": row.values, "best": _name(models, row.best)}
            for row in rows
        ],
    }
    call.output.show(result, side_by_side(models, rows))
    if strangers:
        call.output.note(
            f"{', '.join(strangers)}: not measured as {models[0].model_id} was, so their metrics "
            "can't be compared, and no best one is marked; `milvine evaluate MODEL` with one "
            "holdout for all measures them alike."
        )


def measured_otherwise(models: Sequence[model_pb2.Model]) -> list[str]:
    """The models that were not measured as the first one, by the same holdout on the same data."""
    first = _protocol(models[0])
    if first is None:
        return [model.model_id for model in models]
    return [model.model_id for model in models if _protocol(model) != first]


def figures(models: Sequence[model_pb2.Model], *, marked: bool) -> Iterator[Row]:
    """The metrics at each cutoff and of each segment; the greatest is best."""
    first = models[0].evaluation
    for cutoff in [metrics.cutoff for metrics in first.model]:
        for name in METRICS:
            values = [_metric(model.evaluation, cutoff, name) for model in models]
            # Lists that are new to people, or of many items, are not better for it.
            is_goal = marked and name not in ("coverage", "novelty")
            title = f"{name.replace('_', ' ')}@{cutoff}"
            yield _row(title, values, max if is_goal else None)
    for segment in first.segments:
        values = [_of_segment(model.evaluation, segment.segment) for model in models]
        name = f"{segment_name(segment)}: recall@{first.model[0].cutoff}"
        yield _row(name, values, max if marked else None)


def costs(models: Sequence[model_pb2.Model]) -> Iterator[Row]:
    """What models take; the least is best."""
    seconds = [model.train_duration.ToTimedelta().total_seconds() for model in models]
    yield _row("training, seconds", seconds, min, "{:,.1f}")
    megabytes = [model.item_count * model.dimension * FLOAT_BYTES / 1e6 for model in models]
    yield _row("item vectors, MB", megabytes, min, "{:,.2f}")
    yield _row("dimensions", [float(model.dimension) for model in models], min, "{:,.0f}")


def side_by_side(models: Sequence[model_pb2.Model], rows: Sequence[Row]) -> Table:
    """A column a model."""
    columns = [Column("", style="cyan"), *(number(_title(model)) for model in models)]
    return table(columns, ((row.name, *row.shown) for row in rows))


def _row(
    name: str,
    values: Sequence[float | None],
    better: Callable[[Sequence[float]], float] | None,
    form: str = "{:.4f}",
) -> Row:
    known = [value for value in values if value is not None]
    goal = better(known) if better and len(known) > 1 else None
    winners = [place for place, value in enumerate(values) if value is not None and value == goal]
    best = winners[0] if len(winners) == 1 else None
    shown = tuple(
        "" if value is None else ("* " if place == best else "") + form.format(value)
        for place, value in enumerate(values)
    )
    return Row(name, tuple(values), shown, best)


def _protocol(model: model_pb2.Model) -> tuple[bytes, str] | None:
    """What two models agree in that were measured alike."""
    if not model.evaluation.held_out_fingerprint:
        return None
    holdout = model.evaluation.holdout.SerializeToString(deterministic=True)
    return holdout, model.evaluation.held_out_fingerprint


def _metric(evaluation: model_pb2.Evaluation, cutoff: int, name: str) -> float | None:
    for metrics in evaluation.model:
        if metrics.cutoff == cutoff:
            value: float = getattr(metrics, name)
            return novelty(metrics) if name == "novelty" else value
    return None


def _of_segment(evaluation: model_pb2.Evaluation, segment: int) -> float | None:
    found = (one.model[0].recall for one in evaluation.segments if one.segment == segment)
    return next(found, None)


def _title(model: model_pb2.Model) -> str:
    family = model.config.WhichOneof("family") or ""
    return "\n".join(filter(None, (model.display_name, family, model.model_id)))


def _name(models: Sequence[model_pb2.Model], place: int | None) -> str | None:
    return None if place is None else models[place].model_id
