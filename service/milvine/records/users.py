"""The users who have interactions, in the order of their ids, without reading what they did."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Select, String, bindparam, func, literal, select

from milvine.records.database import Database
from milvine.records.rows import number_of
from milvine.records.schema import INTERACTIONS

_COUNTED = 100_000
"""Users of one statement that counts: it has to end in time."""


def users(database: Database, catalog_id: str, *, after: str, limit: int) -> list[str]:
    """At most `limit` users by the bytes of their ids, from the first one after `after`.

    It costs a look into the primary key for each user, however much a user did.

    Raises:
        NotFound: there is no such catalog.
    """
    with database.read() as connection:
        values = {"number": number_of(connection, catalog_id, hold=False)}
        return list(connection.execute(_USERS, values | _from(after, limit)).scalars())


def count_users(database: Database, catalog_id: str, *, after: str) -> int:
    """How many users there are after `after`, which costs as much as listing them.

    Raises:
        NotFound: there is no such catalog.
    """
    count, found = 0, _COUNTED
    with database.read() as connection:
        values = {"number": number_of(connection, catalog_id, hold=False)}
        while found == _COUNTED:
            found, after = connection.execute(_COUNT, values | _from(after, _COUNTED)).one()
            count += found
    return count


def _from(after: str, limit: int) -> dict[str, object]:
    return {"after": after, "limit": limit}


def _walk() -> Select[Any]:
    """From one user to the next through the primary key, which no planner does for a DISTINCT."""
    others = INTERACTIONS.alias()
    first = (
        select(INTERACTIONS.c.user_id)
        .where(
            INTERACTIONS.c.catalog_number == bindparam("number"),
            INTERACTIONS.c.user_id > bindparam("after", type_=String),
        )
        .order_by(INTERACTIONS.c.user_id)
        .limit(1)
        .scalar_subquery()
    )
    walk = select(first.label("user_id"), literal(1).label("n")).cte("walk", recursive=True)
    following = (
        select(others.c.user_id)
        .where(
            others.c.catalog_number == bindparam("number"),
            others.c.user_id > walk.c.user_id,
        )
        .order_by(others.c.user_id)
        .limit(1)
        .scalar_subquery()
    )
    steps = select(following, walk.c.n + 1).where(
        walk.c.user_id.is_not(None), walk.c.n < bindparam("limit")
    )
    found = walk.union_all(steps)
    return select(found.c.user_id).where(found.c.user_id.is_not(None))


_USERS = _walk().order_by("user_id")
_WALKED = _walk().subquery()
_COUNT = select(func.count(), func.max(_WALKED.c.user_id)).select_from(_WALKED)
