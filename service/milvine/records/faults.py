"""The one place where errors of the databases' drivers become errors of the domain."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

import adbc_driver_manager as adbc
import psycopg
import sqlalchemy.exc

from milvine.domain.errors import DeadlineExceeded, MilvineError, Reason, Unavailable

_DOWN = (
    "the records database does not answer; check that it runs and that the records URL "
    "points to it, then try again"
)
_BUSY = "the records database is busy with other writes; try again"
UNUSABLE = (
    "the records database can't be read or written; check the path, the free space and the "
    "permissions of its file"
)
_SLOW = "the records database took longer than the call allowed; ask for less or try again"

_SQLITE = {
    sqlite3.SQLITE_BUSY: _BUSY,
    sqlite3.SQLITE_LOCKED: _BUSY,
    sqlite3.SQLITE_CANTOPEN: UNUSABLE,
    sqlite3.SQLITE_READONLY: UNUSABLE,
    sqlite3.SQLITE_IOERR: UNUSABLE,
    sqlite3.SQLITE_FULL: UNUSABLE,
    sqlite3.SQLITE_NOTADB: UNUSABLE,
    sqlite3.SQLITE_CORRUPT: UNUSABLE,
    sqlite3.SQLITE_PERM: UNUSABLE,
}
"""Primary result codes, which are the low byte of the extended ones."""

_QUERY_CANCELED = "57014"
_BUSY_STATES = frozenset({"40001", "40P01", "55P03"})
"""SQLSTATEs: could not serialise, deadlock, lock not available."""
_DOWN_CLASSES = frozenset({"08", "53", "57", "58"})
"""Classes of SQLSTATEs: connection, resources, operator's intervention, system."""
_ACCESS_CLASSES = frozenset({"28", "3D"})
"""Classes of SQLSTATEs: refused password or role, no such database."""


@contextmanager
def translated() -> Iterator[None]:
    """Raise errors of the drivers as errors of the domain; a fault of our own passes unchanged."""
    try:
        yield
    except (sqlalchemy.exc.SQLAlchemyError, sqlite3.Error, psycopg.Error, adbc.Error) as exc:
        fault = fault_of(exc)
        if fault is None:
            raise
        raise fault from exc


def fault_of(exc: BaseException | None) -> MilvineError | None:
    """What a caller is told; None for an error that only a fault of our own can cause."""
    match exc:
        case sqlalchemy.exc.TimeoutError():
            return _unavailable(_BUSY)
        case sqlalchemy.exc.DBAPIError():
            return fault_of(exc.orig)
        case sqlite3.Error():
            code = getattr(exc, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
            return _unavailable(_SQLITE[code]) if code in _SQLITE else None
        case psycopg.Error() | adbc.Error():
            return _of_postgres(exc)
        case _:
            return None


def _of_postgres(exc: psycopg.Error | adbc.Error) -> MilvineError | None:
    state = exc.sqlstate or ""
    if state == _QUERY_CANCELED:
        return DeadlineExceeded(_SLOW)
    if state in _BUSY_STATES:
        return _unavailable(_BUSY)
    if state[:2] in _DOWN_CLASSES | _ACCESS_CLASSES:
        return _unavailable(_DOWN)
    # A connection that breaks has no SQLSTATE: the server could not send one.
    lost = isinstance(
        exc, psycopg.OperationalError | psycopg.InterfaceError | adbc.OperationalError
    )
    return _unavailable(_DOWN) if not state and lost else None


def _unavailable(message: str) -> Unavailable:
    return Unavailable(message, Reason.RECORDS_UNAVAILABLE)
