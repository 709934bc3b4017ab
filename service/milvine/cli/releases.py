"""`milvine publish | releases`: bringing models into service, and going back."""

from __future__ import annotations

from dataclasses import dataclass

import click

from milvine.cli.command import Remote, remote
from milvine.cli.documents import document
from milvine.cli.following import follow
from milvine.cli.output import Column, number, table
from milvine.client.types import moment
from milvine.domain.errors import FailedPrecondition, Reason
from milvine.v1 import release_pb2

_ACTIVE = release_pb2.Release.STATE_ACTIVE
_READY = release_pb2.Release.STATE_READY


@dataclass(frozen=True, slots=True)
class PublishArgs:
    """What `milvine publish` was asked."""

    model: str | None
    latest: str | None
    hold: bool
    min_index_recall: float | None
    keep_releases: int | None

    def __post_init__(self) -> None:
        if (self.model is None) == (self.latest is None):
            raise click.UsageError("name a MODEL, or --latest CATALOG")


@click.command()
@click.argument("model", required=False)
@click.option("--latest", metavar="CATALOG", help="Publish the newest model of that catalog.")
@click.option("--hold", is_flag=True, help="Build and check only; activate it later.")
@click.option(
    "--min-index-recall",
    type=click.FloatRange(0, 1),
    help="The least share of the exact best hits that the live index must find; default 0.95.",
)
@click.option(
    "--keep",
    "keep_releases",
    type=click.IntRange(0, 100),
    help="How many releases to keep beside the active one; default 1.",
)
@remote(PublishArgs, needs_worker=True)
async def publish(call: Remote, args: PublishArgs) -> None:
    """Build a release of a MODEL, check it, and make it the one that serves."""
    handle = await call.client.publish(
        args.model or await _latest(call, args.latest or ""),
        hold=args.hold,
        min_index_recall=args.min_index_recall,
        keep_releases=args.keep_releases,
    )
    release = await follow(call, handle, "Publishing")
    call.output.show(document(release), _summary(release), _gate(release))


@dataclass(frozen=True, slots=True)
class ReleasesArgs:
    """What `milvine releases` was asked."""

    catalog: str
    activate: str | None
    rollback: bool
    delete: str | None

    def __post_init__(self) -> None:
        if sum((self.activate is not None, self.rollback, self.delete is not None)) > 1:
            raise click.UsageError("take one of --activate, --rollback and --delete")


@click.command()
@click.argument("catalog")
@click.option("--activate", metavar="ID", help="Make that release the one that serves.")
@click.option("--rollback", is_flag=True, help="Go back to the release that served before.")
@click.option("--delete", metavar="ID", help="Delete a release that is not active.")
@remote(ReleasesArgs)
async def releases(call: Remote, args: ReleasesArgs) -> None:
    """List the releases of a CATALOG, newest first, or change which one serves."""
    if args.delete is not None:
        await call.client.delete_release(args.delete)
        call.output.show({"deleted": args.delete}, f"Deleted release {args.delete}.")
        return
    found = [release async for release in call.client.releases(args.catalog)]
    if args.activate is not None or args.rollback:
        active = await call.client.activate(args.activate or _before(args.catalog, found))
        call.output.show(document(active), _summary(active))
        return
    columns = [
        *(Column(""), Column("release", style="cyan"), Column("state"), Column("model")),
        *(number("items"), number("users"), number("index recall")),
        *(Column("created"), Column("activated"), Column("failure", style="red")),
    ]
    call.output.show(
        {"releases": [document(release) for release in found]}, table(columns, map(_row, found))
    )


async def _latest(call: Remote, catalog: str) -> str:
    async for model in call.client.models(catalog):
        return model.model_id
    raise FailedPrecondition(
        f"catalog {catalog!r} has no model; train one with `milvine train {catalog}`",
        Reason.WRONG_STATE,
        {"catalog_id": catalog},
    )


def _before(catalog: str, found: list[release_pb2.Release]) -> str:
    """The release that served before the active one."""
    ready = [r for r in found if r.state == _READY and r.HasField("activate_time")]
    if not ready:
        raise FailedPrecondition(
            f"catalog {catalog!r} has no release to go back to; `milvine releases {catalog}` "
            "lists what it has",
            Reason.WRONG_STATE,
            {"catalog_id": catalog},
        )
    return max(ready, key=lambda release: moment(release.activate_time)).release_id


def _summary(release: release_pb2.Release) -> str:
    state = "serves" if release.state == _ACTIVE else "is ready to be activated for"
    return (
        f"Release [cyan]{release.release_id}[/] {state} {release.catalog_id}: "
        f"{release.item_count:,} items and {release.user_count:,} users "
        f"of model {release.model_id}."
    )


def _gate(release: release_pb2.Release) -> str:
    gate = release.gate
    return (
        f"Gate passed: the live index found {gate.index_recall:.2%} of the exact best hits "
        f"of {gate.sample_size:,} users (at least {gate.min_index_recall:.0%})."
    )


def _row(release: release_pb2.Release) -> tuple[object, ...]:
    has_gate, was_active = release.HasField("gate"), release.HasField("activate_time")
    return (
        "*" if release.state == _ACTIVE else "",
        release.release_id,
        release_pb2.Release.State.Name(release.state).removeprefix("STATE_"),
        release.model_id,
        f"{release.item_count:,}",
        f"{release.user_count:,}",
        release.gate.index_recall if has_gate else None,
        moment(release.create_time),
        moment(release.activate_time) if was_active else None,
        release.failure,
    )
