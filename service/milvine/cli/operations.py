"""`milvine operations`: long work, done and under way."""

from __future__ import annotations

from dataclasses import dataclass

import click
from google.longrunning import operations_pb2

from milvine.cli.command import Remote, remote
from milvine.cli.documents import document, unpacked
from milvine.cli.output import Column, number, table

_CANCELLED = 1
"""The number of the canonical code CANCELLED."""


@dataclass(frozen=True, slots=True)
class OperationsArgs:
    """What `milvine operations` was asked."""

    cancel: str | None


@click.command()
@click.option("--cancel", metavar="NAME", help="Ask that operation to stop.")
@remote(OperationsArgs)
async def operations(call: Remote, args: OperationsArgs) -> None:
    """List trainings, searches, publications and erasures, or cancel one."""
    if args.cancel is not None:
        await call.client.operation(args.cancel).cancel()
        call.output.show({"cancelled": args.cancel}, f"Asked {args.cancel} to stop.")
        return
    found = [operation async for operation in call.client.operations()]
    columns = [
        *(Column("operation", style="cyan"), Column("what"), Column("catalog")),
        *(Column("state"), Column("step"), number("done"), Column("why", style="red")),
    ]
    call.output.show(
        {"operations": [document(operation) for operation in found]},
        table(columns, map(_row, found)),
    )


def _row(operation: operations_pb2.Operation) -> tuple[object, ...]:
    metadata = document(unpacked(operation.metadata))
    told = metadata if isinstance(metadata, dict) else {}
    return (
        operation.name,
        operation.metadata.TypeName().removeprefix("milvine.v1.").removesuffix("Metadata"),
        told.get("catalog_id"),
        _state(operation),
        str(told.get("stage", "")).removeprefix("STAGE_").removesuffix("UNSPECIFIED"),
        f"{float(told.get('progress', operation.done)):.0%}",
        operation.error.message,
    )


def _state(operation: operations_pb2.Operation) -> str:
    if not operation.done:
        return "under way"
    if operation.HasField("error"):
        return "cancelled" if operation.error.code == _CANCELLED else "failed"
    return "succeeded"
