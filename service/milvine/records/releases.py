"""Releases in SQL; their vectors lie elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import Connection, Row, delete, select, update

from milvine.domain.entity import from_micros, to_micros
from milvine.domain.errors import FailedPrecondition, NotFound, Reason
from milvine.domain.release import Release, ReleaseState
from milvine.records.codec import dump, load
from milvine.records.database import Database, now_micros
from milvine.records.rows import catalog_number, create, newest_first, number_of
from milvine.records.schema import CATALOGS, MODELS, RELEASES


class Releases:
    """The releases of a database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def create(self, release: Release) -> Release:
        """The release as stored, created now unless it says when.

        Raises:
            NotFound: there is no such catalog or model.
            AlreadyExists: there is a release of that id.
        """
        moment = to_micros(release.create_time) if release.create_time else now_micros()
        stored = replace(release, create_time=from_micros(moment))
        with self._database.write() as connection:
            number = number_of(connection, release.catalog_id)
            model = select(MODELS.c.id).where(
                MODELS.c.id == release.model_id, MODELS.c.catalog_number == number
            )
            if connection.execute(model.with_for_update(read=True, key_share=True)).first() is None:
                raise NotFound.of("model", release.model_id)
            values = {
                "id": release.id,
                "catalog_number": number,
                "model_id": release.model_id,
                "create_time": moment,
            }
            create(connection, RELEASES, values | _content(stored))
        return stored

    def get(self, release_id: str) -> Release:
        """The release of that id.

        Raises:
            NotFound: there is none.
        """
        with self._database.read() as connection:
            return _release(_row(connection, release_id))

    def list(self, catalog_id: str, *, limit: int, after: str | None = None) -> list[Release]:
        """At most `limit` releases of a catalog, newest first, from the first one after `after`.

        Raises:
            InvalidPageToken: there is no release `after` any more.
        """
        with self._database.read() as connection:
            query = newest_first(connection, RELEASES, limit=limit, after=after)
            of_catalog = query.where(RELEASES.c.catalog_number == catalog_number(catalog_id))
            return [_release(row) for row in connection.execute(of_catalog)]

    def live(self) -> Sequence[Release]:
        """All BUILDING and READY releases of all catalogs, oldest first."""
        states = (ReleaseState.BUILDING.value, ReleaseState.READY.value)
        query = select(RELEASES).where(RELEASES.c.state.in_(states))
        with self._database.read() as connection:
            rows = connection.execute(query.order_by(RELEASES.c.create_time, RELEASES.c.id))
            return [_release(row) for row in rows]

    def save(self, release: Release) -> None:
        """Replace what is stored of a release; when it was created stays.

        Raises:
            NotFound: there is no such release.
        """
        query = update(RELEASES).where(RELEASES.c.id == release.id).values(_content(release))
        with self._database.write() as connection:
            if not connection.execute(query).rowcount:
                raise NotFound.of("release", release.id)

    def delete(self, release_id: str) -> None:
        """Delete a release.

        Raises:
            NotFound: there is no such release.
            FailedPrecondition: it is the active one of its catalog.
        """
        with self._database.write() as connection:
            number = _row(connection, release_id).catalog_number
            query = select(CATALOGS.c.active_release_id).where(CATALOGS.c.number == number)
            if connection.execute(query.with_for_update()).scalar() == release_id:
                raise FailedPrecondition(
                    f"release {release_id!r} serves its catalog; activate another one first",
                    Reason.RESOURCE_IN_USE,
                    {"release_id": release_id},
                )
            connection.execute(delete(RELEASES).where(RELEASES.c.id == release_id))

    def synced(self, release_id: str) -> int:
        """The revision up to which changes of items and users are in its collections.

        Raises:
            NotFound: there is no such release.
        """
        with self._database.read() as connection:
            return int(_row(connection, release_id).synced_revision)

    def set_synced(self, release_id: str, revision: int) -> None:
        """Note that all changes up to a revision are in its collections.

        Raises:
            NotFound: there is no such release.
        """
        query = update(RELEASES).where(RELEASES.c.id == release_id)
        with self._database.write() as connection:
            if not connection.execute(query.values(synced_revision=revision)).rowcount:
                raise NotFound.of("release", release_id)


def _row(connection: Connection, release_id: str) -> Row[Any]:
    row = connection.execute(select(RELEASES).where(RELEASES.c.id == release_id)).one_or_none()
    if row is None:
        raise NotFound.of("release", release_id)
    return row


def _content(release: Release) -> dict[str, str]:
    return {
        "state": release.state.value,
        "body": dump(replace(release, create_time=None)),
    }


def _release(row: Row[Any]) -> Release:
    return replace(load(Release, row.body), create_time=from_micros(row.create_time))
