"""`milvine curve`: how a training went, epoch by epoch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from milvine.cli.command import Remote, remote
from milvine.cli.documents import document
from milvine.cli.output import Column, number, table
from milvine.domain.errors import FailedPrecondition, Reason
from milvine.v1 import model_pb2


@dataclass(frozen=True, slots=True)
class CurveArgs:
    """What `milvine curve` was asked."""

    model: str
    png: Path | None


@click.command()
@click.argument("model")
@click.option(
    "--png",
    type=click.Path(dir_okay=False, writable=True, path_type=Path),
    help="Draw it into this file; needs the extra `plots`.",
)
@remote(CurveArgs)
async def curve(call: Remote, args: CurveArgs) -> None:
    """Show the loss of a MODEL's epochs, what was measured after each, and how long it took."""
    model = await call.client.get_model(args.model)
    fits = {"on everything": model.epochs, "without what is held out": model.holdout_epochs}
    told = {name: epochs for name, epochs in fits.items() if epochs}
    if args.png is not None:
        _draw(model, told, args.png)
    columns = [Column("fit", style="cyan"), *map(number, ("epoch", "loss", "metric", "seconds"))]
    rows = [_row(name, epoch) for name, epochs in told.items() for epoch in epochs]
    remarks = [] if args.png is None else [f"Drawn into {args.png}."]
    call.output.show(
        {
            "model_id": model.model_id,
            "epochs": [document(epoch) for epoch in model.epochs],
            "holdout_epochs": [document(epoch) for epoch in model.holdout_epochs],
        },
        table(columns, rows, title=_title(model)),
        *remarks,
    )


def _row(fit: str, epoch: model_pb2.EpochReport) -> tuple[object, ...]:
    return (
        fit,
        f"{epoch.epoch}/{epoch.epoch_count}",
        f"{epoch.loss:.6g}",
        epoch.metric if epoch.HasField("metric") else None,
        f"{epoch.duration.ToTimedelta().total_seconds():.2f}",
    )


def _title(model: model_pb2.Model) -> str:
    return f"{model.config.WhichOneof('family')}, model {model.model_id}"


def _draw(
    model: model_pb2.Model, fits: Mapping[str, Sequence[model_pb2.EpochReport]], path: Path
) -> None:
    """Draw the losses of fits, and below them what was measured after each epoch."""
    try:
        from matplotlib.figure import Figure  # noqa: PLC0415 - an extra
    except ImportError as exc:
        raise FailedPrecondition(
            "--png needs matplotlib: pip install 'milvine[plots]'", Reason.NOT_SUPPORTED
        ) from exc
    measured = {name: [e for e in epochs if e.HasField("metric")] for name, epochs in fits.items()}
    figure = Figure(figsize=(8, 6 if any(measured.values()) else 4), layout="constrained")
    axes = figure.subplots(1 + any(measured.values()), squeeze=False, sharex=True)[:, 0]
    _line(axes[0], fits, "loss")
    if any(measured.values()):
        _line(axes[1], measured, "metric")
        axes[1].set_ylabel("validation NDCG@20")
    axes[0].set_ylabel("loss")
    axes[0].set_title(_title(model))
    axes[0].legend()
    axes[-1].set_xlabel("epoch")
    axes[-1].xaxis.get_major_locator().set_params(integer=True)
    try:
        figure.savefig(path, format="png", dpi=150)
    except OSError as exc:
        raise click.FileError(str(path), exc.strerror or "can't be written") from exc


def _line(
    axes: Any,  # noqa: ANN401 - matplotlib's own, of an extra
    fits: Mapping[str, Sequence[model_pb2.EpochReport]],
    value: str,
) -> None:
    for name, epochs in fits.items():
        xs, ys = [e.epoch for e in epochs], [getattr(e, value) for e in epochs]
        axes.plot(xs, ys, marker="o", markersize=3, label=name)
