"""Databases that are away, busy or slow, and how their errors are told."""

from __future__ import annotations

import sqlite3
import threading

import psycopg
import pytest
import sqlalchemy.exc

from milvine.domain.entity import Side
from milvine.domain.errors import DeadlineExceeded, Reason, Unavailable
from milvine.records import Records
from milvine.records.bulk import COPY_FROM
from milvine.records.faults import fault_of
from tests.contracts.records.conftest import SHOP
from tests.contracts.records.samples import events
from tests.servers.postgres import (
    crash_postgres,
    fresh_database,
    restart_postgres,
    run_postgres,
)


def calls(records):
    """A call of each way to the database: a read, a write, and both of bulk."""
    bulk = events(*[("u", "i", n) for n in range(COPY_FROM + 1)])
    return (
        records.ping,
        lambda: records.catalogs.get("shop"),
        lambda: records.entities.delete("shop", Side.ITEM, []),
        lambda: records.interactions.append("shop", events(("u", "i", 1))),
        lambda: records.interactions.append("shop", bulk),
        lambda: records.interactions.scan("shop"),
        lambda: records.leases.hold("l", "o", seconds=1),
    )


def test_a_database_that_goes_away_and_comes_back(tmp_path_factory):
    """While PostgreSQL is down each call is Unavailable; then the same Records go on."""
    directory = tmp_path_factory.mktemp("postgres")
    with run_postgres(directory) as url:
        records = Records.open(url, timeout_s=5)
        records.catalogs.create(SHOP)
        crash_postgres(directory)
        for call in (*calls(records), lambda: Records.open(url)):
            with pytest.raises(Unavailable) as fault:
                call()
            assert fault.value.reason is Reason.RECORDS_UNAVAILABLE
            assert "check that it runs" in fault.value.message
        restart_postgres(directory)
        for call in calls(records):
            call()
        assert records.interactions.count("shop") == COPY_FROM + 1
        records.close()


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://nobody@127.0.0.1:1/none",
        "sqlite:////nonexistent/folder/records.db",
        "sqlite:///FOLDER/text",
        "sqlite:///FOLDER",
    ],
)
def test_a_database_that_can_not_be_opened(url, tmp_path):
    """A wrong address, a missing folder, a file that is no database: Unavailable with a way out."""
    (tmp_path / "text").write_text("no database\n" * 1_000)
    with pytest.raises(Unavailable, match="check") as fault:
        Records.open(url.replace("FOLDER", str(tmp_path)), timeout_s=2)
    assert fault.value.reason is Reason.RECORDS_UNAVAILABLE


def test_a_missing_database_is_told_without_the_servers_words(postgres_url):
    """The message is ours."""
    with pytest.raises(Unavailable) as fault:
        Records.open(postgres_url.replace("/postgres?", "/missing?"))
    assert "missing" not in fault.value.message


def test_a_file_that_another_process_keeps_locked_is_busy(tmp_path):
    """SQLite's one writer elsewhere: Unavailable after the timeout, then it goes on."""
    records = Records.open(f"sqlite:///{tmp_path}/records.db", timeout_s=0.2)
    records.catalogs.create(SHOP)
    other = sqlite3.connect(tmp_path / "records.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(Unavailable, match="busy"):
        records.interactions.append("shop", events(("u", "i", 1)))
    assert records.catalogs.get("shop").id == "shop"
    other.execute("ROLLBACK")
    other.close()
    assert records.interactions.append("shop", events(("u", "i", 1))).written == 1
    records.close()


def test_a_thread_that_writes_too_long_keeps_others_waiting_so_long_only(tmp_path):
    """Writers of one process take turns, and give up after the timeout."""
    records = Records.open(f"sqlite:///{tmp_path}/records.db", timeout_s=0.2)
    records.catalogs.create(SHOP)
    inside, done = threading.Event(), threading.Event()

    def linger(catalog):
        inside.set()
        assert done.wait(30)
        return catalog

    writer = threading.Thread(target=records.catalogs.update, args=("shop", linger))
    writer.start()
    assert inside.wait(30)
    with pytest.raises(Unavailable, match="busy"):
        records.entities.delete("shop", Side.USER, ["u"])
    done.set()
    writer.join()
    records.close()


def test_a_slow_statement_ends_at_its_deadline(postgres_url):
    """A statement over the timeout is told as DeadlineExceeded."""
    records = Records.open(fresh_database(postgres_url), timeout_s=0.5)
    with pytest.raises(DeadlineExceeded), records._database.read() as connection:
        connection.exec_driver_sql("SELECT pg_sleep(30)")
    records.ping()
    records.close()


def test_a_writer_that_waits_for_a_lock_ends_at_its_deadline(postgres_url):
    """A row that another session keeps locked costs no more than the timeout."""
    url = fresh_database(postgres_url)
    records = Records.open(url, timeout_s=0.5)
    records.catalogs.create(SHOP)
    with psycopg.connect(url) as other:
        other.execute("SELECT * FROM catalogs FOR UPDATE")
        with pytest.raises(DeadlineExceeded):
            records.entities.delete("shop", Side.ITEM, ["a"])
    assert records.entities.delete("shop", Side.ITEM, ["a"]) == 0
    records.close()


def sqlite_error(code):
    error = sqlite3.OperationalError("text of the store")
    error.sqlite_errorcode = code
    return error


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (sqlite_error(sqlite3.SQLITE_BUSY), Unavailable),
        (sqlite_error(sqlite3.SQLITE_BUSY_SNAPSHOT), Unavailable),
        (sqlite_error(sqlite3.SQLITE_FULL), Unavailable),
        (sqlite_error(sqlite3.SQLITE_IOERR_FSYNC), Unavailable),
        (sqlite_error(sqlite3.SQLITE_CORRUPT), Unavailable),
        (sqlite_error(sqlite3.SQLITE_ERROR), type(None)),
        (psycopg.errors.QueryCanceled(), DeadlineExceeded),
        (psycopg.errors.DeadlockDetected(), Unavailable),
        (psycopg.errors.SerializationFailure(), Unavailable),
        (psycopg.errors.AdminShutdown(), Unavailable),
        (psycopg.errors.TooManyConnections(), Unavailable),
        (psycopg.errors.DiskFull(), Unavailable),
        (psycopg.errors.InvalidPassword(), Unavailable),
        (psycopg.errors.UndefinedTable(), type(None)),
        (psycopg.OperationalError("connection lost"), Unavailable),
        (psycopg.InterfaceError("connection lost"), Unavailable),
        (sqlalchemy.exc.TimeoutError(), Unavailable),
        (ValueError(), type(None)),
    ],
)
def test_the_drivers_errors_are_told_as_ours(error, expected):
    """Each kind of trouble has its error, never the store's words; faults of our own have none."""
    fault = fault_of(error)
    assert type(fault) is expected
    assert "text of the store" not in str(fault)
