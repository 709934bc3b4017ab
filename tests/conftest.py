"""Real servers for the whole suite, started once and stopped by it."""

from __future__ import annotations

from pathlib import Path

import pytest
import structlog
from hypothesis import HealthCheck, settings

from tests.servers.milvus import run_milvus
from tests.servers.postgres import run_postgres

settings.register_profile("fast", max_examples=25, deadline=None, derandomize=True)
settings.register_profile(
    "thorough", max_examples=500, deadline=None, suppress_health_check=list(HealthCheck)
)
settings.load_profile("fast")


@pytest.fixture(autouse=True)
def _own_logs():
    """What a test does to this process's logs ends with it."""
    yield
    structlog.reset_defaults()


@pytest.fixture(scope="session")
def postgres_url(tmp_path_factory: pytest.TempPathFactory):
    """The URL of a PostgreSQL server with one empty database."""
    with run_postgres(Path(tmp_path_factory.mktemp("postgres"))) as url:
        yield url


@pytest.fixture(scope="session")
def milvus_uri(tmp_path_factory: pytest.TempPathFactory):
    """The URI of the oldest supported Milvus server."""
    with run_milvus(Path(tmp_path_factory.mktemp("milvus"))) as uri:
        yield uri
