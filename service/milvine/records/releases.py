"""Releases in SQL; their vectors lie elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import Connection, Row, Select, delete, select, update

from milvine.domain.entity import from_micros, to_micros
from milvine.domain.errors import FailedPrecondition, NotFound, Reason
from milvine.domain.release import Release, ReleaseState
from milvine.records.attempts import check_current
from milvine.records.codec import dump, load
from milvine.records.database import Database, now_micros
from milvine.records.rows import catalog_number, create, newest_first, number_of
from milvine.records.schema import CATALOGS, MODELS, RELEASES
from milvine.records.strays import StrayKind, adopt, note


class Releases:
    """The releases of a database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def begin(self, release: Release) -> Release:
        """Begin to build a release, or begin again what an earlier attempt left unfinished.

        Its collections are strays until it is ready. One that is ready already is returned as it
        is; everything else is returned as given, created now unless it says when.

        Raises:
            NotFound: there is no such catalog or model.
            Aborted: the attempt is not the one under way at its operation.
        """
        moment = to_micros(release.create_time) if release.create_time else now_micros()
        with self._database.write() as connection:
            number = number_of(connection, release.catalog_id)
            check_current(connection, release.operation_id, release.attempt)
            row = connection.execute(_by_id(release.id)).one_or_none()
            if row is None:
                stored = replace(release, create_time=from_micros(moment))
                _insert(connection, number, stored, moment)
            elif row.state == ReleaseState.READY.value:
                return _release(row)
            else:
                stored = replace(release, create_time=from_micros(row.create_time))
                _save(connection, stored)
            note(connection, StrayKind.COLLECTION, stored.collections(), release.operation_id)
        return stored

    def finish(self, release: Release) -> Release:
        """Make a release READY, else as given; its collections are its own from now on.

        Raises:
            NotFound: there is no such release.
            Aborted: the attempt that built it is not the one under way any more.
        """
        ready = replace(release, state=ReleaseState.READY)
        with self._database.write() as connection:
            check_current(connection, release.operation_id, release.attempt)
            _row(connection, release.id)
            _save(connection, ready)
            adopt(connection, StrayKind.COLLECTION, release.collections())
        return ready

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

    def delete(self, release_id: str) -> None:
        """Delete a release; its collections are strays from now on.

        Raises:
            NotFound: there is no such release.
            FailedPrecondition: it serves its catalog, or is being built.
        """
        with self._database.write() as connection:
            row = _row(connection, release_id)
            query = select(CATALOGS.c.active_release_id).where(
                CATALOGS.c.number == row.catalog_number
            )
            if connection.execute(query.with_for_update()).scalar() == release_id:
                raise FailedPrecondition(
                    f"release {release_id!r} serves its catalog; activate another one first",
                    Reason.RESOURCE_IN_USE,
                    {"release_id": release_id},
                )
            # Under the catalog's lock, and read anew: it can have been taken up meanwhile.
            row = _row(connection, release_id, lock=True)
            if row.state == ReleaseState.BUILDING.value:
                raise FailedPrecondition(
                    f"release {release_id!r} is being built by operation {row.operation_id!r}; "
                    "cancel the operation",
                    Reason.WRONG_STATE,
                    {"release_id": release_id, "operation_id": row.operation_id},
                )
            connection.execute(delete(RELEASES).where(RELEASES.c.id == release_id))
            note(connection, StrayKind.COLLECTION, _release(row).collections())

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


def fail_building(connection: Connection, operation_id: str, words: str) -> None:
    """Say of the release that an operation leaves unfinished that it failed, and why."""
    query = select(RELEASES).where(
        RELEASES.c.operation_id == operation_id, RELEASES.c.state == ReleaseState.BUILDING.value
    )
    for row in connection.execute(query).all():
        _save(connection, replace(_release(row), state=ReleaseState.FAILED, failure=words))


def mark_active(connection: Connection, catalog_number: int, release_id: str) -> None:
    """Note on a READY release of a catalog that it is activated now.

    Raises:
        NotFound: the catalog has no such release.
        FailedPrecondition: it is not READY.
    """
    query = _by_id(release_id).where(RELEASES.c.catalog_number == catalog_number)
    row = connection.execute(query.with_for_update()).one_or_none()
    if row is None:
        raise NotFound.of("release", release_id)
    if row.state != ReleaseState.READY.value:
        raise FailedPrecondition(
            f"release {release_id!r} is {row.state}; only a READY one can be activated",
            Reason.WRONG_STATE,
            {"release_id": release_id, "state": row.state},
        )
    _save(connection, replace(_release(row), activate_time=from_micros(now_micros())))


def delete_all(connection: Connection, catalog_number: int) -> None:
    """Delete every release of a catalog; the collections are strays from now on."""
    of_catalog = RELEASES.c.catalog_number == catalog_number
    for row in connection.execute(select(RELEASES).where(of_catalog)).all():
        note(connection, StrayKind.COLLECTION, _release(row).collections())
    connection.execute(delete(RELEASES).where(of_catalog))


def _insert(connection: Connection, number: int, release: Release, moment: int) -> None:
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
    create(connection, RELEASES, values | _content(release))


def _save(connection: Connection, release: Release) -> None:
    connection.execute(
        update(RELEASES).where(RELEASES.c.id == release.id).values(_content(release))
    )


def _by_id(release_id: str) -> Select[Any]:
    return select(RELEASES).where(RELEASES.c.id == release_id)


def _row(connection: Connection, release_id: str, *, lock: bool = False) -> Row[Any]:
    query = _by_id(release_id)
    row = connection.execute(query.with_for_update() if lock else query).one_or_none()
    if row is None:
        raise NotFound.of("release", release_id)
    return row


def _content(release: Release) -> dict[str, str]:
    return {
        "operation_id": release.operation_id,
        "state": release.state.value,
        "body": dump(replace(release, create_time=None)),
    }


def _release(row: Row[Any]) -> Release:
    return replace(load(Release, row.body), create_time=from_micros(row.create_time))
