"""Models in SQL; their weights lie elsewhere."""

from __future__ import annotations

from dataclasses import replace

from sqlalchemy import Connection, Row, delete, select, update

from milvine.domain.entity import from_micros, to_micros
from milvine.domain.errors import FailedPrecondition, NotFound, Reason
from milvine.domain.model import Evaluation, Model
from milvine.domain.operation import Operation
from milvine.records.attempts import check_current
from milvine.records.codec import dump, load
from milvine.records.database import Database, now_micros
from milvine.records.rows import catalog_number, create, newest_first, number_of
from milvine.records.schema import MODELS, RELEASES
from milvine.records.strays import StrayKind, adopt, note


class Models:
    """The models of a database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def create(self, model: Model, *, made_by: Operation | None = None) -> Model:
        """The model as stored, created now unless it says when; it owns its artifact.

        Raises:
            NotFound: there is no such catalog.
            AlreadyExists: there is one of that id.
            Aborted: the attempt that made it is not the one under way at its operation any more.
        """
        moment = to_micros(model.create_time) if model.create_time else now_micros()
        stored = replace(model, create_time=from_micros(moment))
        with self._database.write() as connection:
            number = number_of(connection, model.catalog_id)
            if made_by is not None:
                check_current(connection, made_by.id, made_by.attempts)
            values = {
                "id": model.id,
                "catalog_number": number,
                "body": dump(stored),
                "create_time": moment,
            }
            create(connection, MODELS, values)
            adopt(connection, StrayKind.ARTIFACT, [model.id])
        return stored

    def get(self, model_id: str) -> Model:
        """The model of that id.

        Raises:
            NotFound: there is none.
        """
        with self._database.read() as connection:
            row = connection.execute(select(MODELS).where(MODELS.c.id == model_id)).one_or_none()
        if row is None:
            raise NotFound.of("model", model_id)
        return _model(row)

    def list(self, catalog_id: str, *, limit: int, after: str | None = None) -> list[Model]:
        """At most `limit` models of a catalog, newest first, from the first one after `after`.

        Raises:
            InvalidPageToken: there is no model `after` any more.
        """
        with self._database.read() as connection:
            query = newest_first(connection, MODELS, limit=limit, after=after)
            of_catalog = query.where(MODELS.c.catalog_number == catalog_number(catalog_id))
            return [_model(row) for row in connection.execute(of_catalog)]

    def set_evaluation(self, model_id: str, evaluation: Evaluation, *, made_by: Operation) -> None:
        """Replace what a model was measured at.

        Raises:
            NotFound: there is no such model.
            Aborted: the attempt that measured it is not the one under way any more.
        """
        with self._database.write() as connection:
            query = select(MODELS).where(MODELS.c.id == model_id).with_for_update()
            row = connection.execute(query).one_or_none()
            if row is None:
                raise NotFound.of("model", model_id)
            check_current(connection, made_by.id, made_by.attempts)
            body = dump(replace(_model(row), evaluation=evaluation))
            connection.execute(update(MODELS).where(MODELS.c.id == model_id).values(body=body))

    def delete(self, model_id: str) -> None:
        """Delete a model; its artifact is a stray from now on.

        Raises:
            NotFound: there is no such model.
            FailedPrecondition: a release uses it.
        """
        with self._database.write() as connection:
            lock = select(MODELS.c.id).where(MODELS.c.id == model_id).with_for_update()
            if connection.execute(lock).one_or_none() is None:
                raise NotFound.of("model", model_id)
            users = select(RELEASES.c.id).where(RELEASES.c.model_id == model_id)
            if connection.execute(users.limit(1)).first():
                raise FailedPrecondition(
                    f"a release uses model {model_id!r}; delete the release first",
                    Reason.RESOURCE_IN_USE,
                    {"model_id": model_id},
                )
            connection.execute(delete(MODELS).where(MODELS.c.id == model_id))
            note(connection, StrayKind.ARTIFACT, [model_id])


def delete_all(connection: Connection, catalog_number: int) -> None:
    """Delete every model of a catalog; the artifacts are strays from now on."""
    gone = delete(MODELS).where(MODELS.c.catalog_number == catalog_number).returning(MODELS.c.id)
    note(connection, StrayKind.ARTIFACT, connection.execute(gone).scalars().all())


def _model(row: Row[tuple[object, ...]]) -> Model:
    return load(Model, row.body)
