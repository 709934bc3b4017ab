"""`milvine catalogs`: declaring what is recommended to whom."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TextIO

import click
import orjson
from google.protobuf import json_format
from rich.console import RenderableType
from rich.table import Table

from milvine.cli.command import Remote, remote
from milvine.cli.documents import document
from milvine.cli.output import Column, number, table
from milvine.client.types import moment
from milvine.domain.errors import InvalidArgument
from milvine.v1 import catalog_pb2

_ENUM_PREFIXES = {"type": "TYPE_", "value_meaning": "VALUE_MEANING_", "kind": "KIND_"}


@dataclass(frozen=True, slots=True)
class FileArgs:
    """What a command was asked that reads a catalog's declaration."""

    file: TextIO


@dataclass(frozen=True, slots=True)
class ListArgs:
    """What `milvine catalogs list` was asked: nothing but the list."""


@dataclass(frozen=True, slots=True)
class ShowArgs:
    """What `milvine catalogs show` was asked."""

    catalog: str


@dataclass(frozen=True, slots=True)
class DeleteArgs:
    """What `milvine catalogs delete` was asked."""

    catalog: str
    force: bool


@click.group()
def catalogs() -> None:
    """Create, list, show and delete catalogs."""


@catalogs.command()
@click.argument("file", type=click.File(encoding="utf-8"))
@remote(FileArgs)
async def create(call: Remote, args: FileArgs) -> None:
    """Create a catalog as the FILE declares it, `-` for stdin: the JSON of a Catalog message.

    Types may be written short, as "INT64" for "TYPE_INT64".
    """
    created = await _create(call, _read(args.file))
    call.output.show(document(created), *_views(created))


@catalogs.command()
@click.argument("file", type=click.File(encoding="utf-8"))
@remote(FileArgs)
async def update(call: Remote, args: FileArgs) -> None:
    """Replace the parts of a catalog's declaration that the FILE has."""
    updated = await call.client.update_catalog(_read(args.file))
    call.output.show(document(updated), *_views(updated))


@catalogs.command("list")
@remote(ListArgs)
async def list_(call: Remote, args: ListArgs) -> None:  # noqa: ARG001 - it takes no arguments
    """List the catalogs."""
    found = [catalog async for catalog in call.client.catalogs()]
    rows = (
        (
            c.catalog_id,
            c.display_name,
            len(c.item_fields),
            len(c.user_fields),
            [event.name for event in c.event_types],
            c.active_release_id or "none",
            moment(c.create_time),
        )
        for c in found
    )
    columns = [
        *(Column("catalog", style="cyan"), Column("name"), number("item fields")),
        *(number("user fields"), Column("event types"), Column("active release")),
        Column("created"),
    ]
    call.output.show({"catalogs": [document(c) for c in found]}, table(columns, rows))


@catalogs.command()
@click.argument("catalog")
@remote(ShowArgs)
async def show(call: Remote, args: ShowArgs) -> None:
    """Show the declaration of a CATALOG."""
    found = await call.client.get_catalog(args.catalog)
    call.output.show(document(found), *_views(found))


@catalogs.command()
@click.argument("catalog")
@click.option("--force", is_flag=True, help="Delete what the catalog holds, too.")
@remote(DeleteArgs)
async def delete(call: Remote, args: DeleteArgs) -> None:
    """Delete a CATALOG that is empty, or with --force all that it holds."""
    await call.client.delete_catalog(args.catalog, force=args.force)
    call.output.show({"deleted": args.catalog}, f"Deleted catalog {args.catalog}.")


async def _create(call: Remote, declared: catalog_pb2.Catalog) -> catalog_pb2.Catalog:
    return await call.client.create_catalog(
        declared.catalog_id,
        display_name=declared.display_name,
        item_fields=declared.item_fields,
        user_fields=declared.user_fields,
        event_types=declared.event_types,
        vector_index=declared.vector_index if declared.HasField("vector_index") else None,
    )


def _read(file: TextIO) -> catalog_pb2.Catalog:
    try:
        declared = orjson.loads(file.read())
        if not isinstance(declared, dict):
            raise InvalidArgument.at(file.name, "is not a Catalog message: it must be an object")
        return json_format.ParseDict(_spelt_out(declared), catalog_pb2.Catalog())
    except orjson.JSONDecodeError as exc:
        raise InvalidArgument.at(
            file.name, f"is not JSON: {exc.msg}, at line {exc.lineno}, column {exc.colno}"
        ) from exc
    except (json_format.ParseError, AttributeError) as exc:
        raise InvalidArgument.at(file.name, f"is not a Catalog message: {exc}") from exc
    except UnicodeDecodeError as exc:
        raise InvalidArgument.at(file.name, "is not in UTF-8") from exc


def _spelt_out(declared: dict[str, object]) -> dict[str, object]:
    """The declaration with the enum values by their full names."""
    return {name: _full(name, value) for name, value in declared.items()}


def _full(name: str, value: object) -> object:
    match value:
        case dict():
            return _spelt_out(value)
        case list():
            return [_full(name, element) for element in value]
        case str() if name in _ENUM_PREFIXES:
            return _ENUM_PREFIXES[name] + value.upper().removeprefix(_ENUM_PREFIXES[name])
        case _:
            return value


def _views(catalog: catalog_pb2.Catalog) -> list[RenderableType]:
    title = catalog.display_name or catalog.catalog_id
    active = catalog.active_release_id or "none yet: train and publish a model"
    return [
        f"[bold]{title}[/] [dim]({catalog.catalog_id})[/]  active release: {active}",
        _fields(catalog),
        _events(catalog.event_types),
    ]


def _fields(catalog: catalog_pb2.Catalog) -> Table:
    sides = (("item", catalog.item_fields), ("user", catalog.user_fields))
    rows = (
        (
            side,
            field.name,
            catalog_pb2.Field.Type.Name(field.type).removeprefix("TYPE_"),
            "embedded" if field.embed_text else "",
        )
        for side, fields in sides
        for field in fields
    )
    names = [Column("of"), Column("field", style="cyan"), Column("type"), Column("text")]
    return table(names, rows)


def _events(event_types: Iterable[catalog_pb2.EventType]) -> Table:
    meanings = catalog_pb2.EventType.ValueMeaning
    rows = (
        (
            event.name,
            f"{event.weight:g}" if event.HasField("weight") else "1",
            meanings.Name(event.value_meaning).removeprefix("VALUE_MEANING_"),
            f"{event.liked_from:g}" if event.HasField("liked_from") else "any value",
        )
        for event in event_types
    )
    columns = [
        *(Column("event type", style="cyan"), number("weight")),
        *(Column("value means"), Column("liked from")),
    ]
    return table(columns, rows)
