"""Connections and transactions on SQLite and PostgreSQL.

SQLite is spoken to through Python's own driver only, also in bulk. The ADBC driver brings a second
copy of SQLite, and the locks of two copies in one process do not see each other: both get the write
lock at once, and acknowledged rows get lost (https://sqlite.org/howtocorrupt.html, section 2.2.1).
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from psycopg.conninfo import make_conninfo
from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError

from milvine.domain.errors import InvalidArgument, Reason, Unavailable
from milvine.records.faults import UNUSABLE, translated
from milvine.records.marks import Marks

_READS = "milvine_reads"
_POOL_SIZE = 8
_BULK_S = 600.0
"""How long a statement may take that moves a whole table."""


@dataclass(frozen=True, slots=True)
class Database:
    """A pool of connections, and the transactions on them."""

    engine: Engine
    reader: Engine
    """The same pool for statements that stand alone: on PostgreSQL without BEGIN and COMMIT."""
    timeout_s: float
    marks: Marks
    """Of the users, for what is remembered of them."""
    _turn: AbstractContextManager[object]

    @property
    def is_sqlite(self) -> bool:
        """Whether it is SQLite; PostgreSQL else."""
        return self.engine.dialect.name == "sqlite"

    @property
    def conninfo(self) -> str:
        """What a driver that moves whole tables connects to PostgreSQL with."""
        url = self.engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
        return make_conninfo(url, **_options(self.timeout_s, statement_s=_BULK_S))

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A connection on which each statement sees what is committed.

        Raises:
            Unavailable: the database does not answer.
            DeadlineExceeded: a statement took longer than the timeout.
        """
        with translated(), self.reader.connect() as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction, durable when the block ends, undone when it raises.

        Raises:
            Unavailable: the database does not answer, or other writers kept it busy.
            DeadlineExceeded: a statement took longer than the timeout.
        """
        with translated(), self._turn, self.engine.begin() as connection:
            yield connection

    def close(self) -> None:
        """Close every connection."""
        self.engine.dispose()


def connect(url: str, *, timeout_s: float) -> Database:
    """The database of that URL; nothing is asked of it yet.

    Raises:
        InvalidArgument: the URL is neither `sqlite:///FILE` nor `postgresql://...`.
    """
    parsed = _parse(url)
    if parsed.drivername == "sqlite":
        engine = _sqlite(parsed, timeout_s)
        reader = engine.execution_options(**{_READS: True})
        marks = _marks(Path(str(parsed.database)))
        return Database(engine, reader, timeout_s, marks, _Turn(timeout_s))
    engine = _postgres(parsed, timeout_s)
    reader = engine.execution_options(isolation_level="AUTOCOMMIT")
    return Database(engine, reader, timeout_s, Marks.own(), nullcontext())


def now_micros() -> int:
    """The moment by this machine's clock, in microseconds since 1970."""
    return time.time_ns() // 1_000


def shared_now_micros(connection: Connection) -> int:
    """The moment by the database's clock, which all workers share.

    On SQLite that is this machine's: its users are processes of one machine.
    """
    if connection.dialect.name == "sqlite":
        return now_micros()
    sql = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint"
    return int(connection.exec_driver_sql(sql).scalar_one())


def _marks(database: Path) -> Marks:
    try:
        return Marks.beside(database)
    except OSError as exc:
        raise Unavailable(UNUSABLE, Reason.RECORDS_UNAVAILABLE) from exc


class _Turn:
    """Lets one thread of this process write at a time.

    SQLite has one writer; threads that wait on its file sleep up to 100 ms between looks.
    """

    def __init__(self, timeout_s: float) -> None:
        self._lock = threading.Lock()
        self._timeout_s = timeout_s

    def __enter__(self) -> None:
        if not self._lock.acquire(timeout=self._timeout_s):
            raise Unavailable(
                "the records database is busy with other writes; try again",
                Reason.RECORDS_UNAVAILABLE,
            )

    def __exit__(self, *_: object) -> None:
        self._lock.release()


def _parse(url: str) -> URL:
    try:
        parsed = make_url(url)
    except ArgumentError as exc:
        raise _bad_url() from exc
    if parsed.drivername not in ("sqlite", "postgresql") or not parsed.database:
        raise _bad_url()
    return parsed


def _bad_url() -> InvalidArgument:
    return InvalidArgument.at(
        "MILVINE_RECORDS_URL", "must be sqlite:///FILE or postgresql://USER@HOST:PORT/DATABASE"
    )


def _sqlite(url: URL, timeout_s: float) -> Engine:
    engine = create_engine(
        url,
        connect_args={"timeout": timeout_s},
        pool_size=_POOL_SIZE,
        max_overflow=_POOL_SIZE,
        pool_timeout=timeout_s,
    )
    event.listen(engine, "connect", _set_up_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _set_up_sqlite(connection: sqlite3.Connection, _record: object) -> None:
    connection.isolation_level = None  # transactions are ours to begin
    for pragma in (
        "journal_mode = WAL",
        "synchronous = FULL",  # what is acknowledged survives a loss of power too
        "foreign_keys = ON",
        "cache_size = -65536",
        "temp_store = MEMORY",
    ):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: Connection) -> None:
    """Take the write lock at once: a reader that becomes a writer can be refused at any time."""
    if not connection.get_execution_options().get(_READS):
        connection.exec_driver_sql("BEGIN IMMEDIATE")


def _postgres(url: URL, timeout_s: float) -> Engine:
    return create_engine(
        url.set(drivername="postgresql+psycopg"),
        connect_args=_options(timeout_s, statement_s=timeout_s),
        pool_pre_ping=True,
        pool_size=_POOL_SIZE,
        max_overflow=_POOL_SIZE,
        pool_timeout=timeout_s,
    )


def _options(timeout_s: float, *, statement_s: float) -> dict[str, str]:
    """Parameters of libpq: deadlines to connect, for a statement, and for a silent server."""
    return {
        "connect_timeout": str(max(2, round(timeout_s))),
        "options": f"-c statement_timeout={int(statement_s * 1_000)}",
        "tcp_user_timeout": str(int(timeout_s * 1_000)),
    }
