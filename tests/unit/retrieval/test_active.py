"""Which release answers, while the artifacts do not."""

from __future__ import annotations

import asyncio
import contextlib
import os
from dataclasses import replace
from pathlib import Path

import pytest

from milvine.artifacts import Artifacts
from milvine.domain.catalog import Catalog, EventType
from milvine.domain.errors import DataLoss
from milvine.domain.operation import Operation, OperationKind
from milvine.records import Records
from milvine.retrieval import ActiveReleases
from tests.contracts.records import samples

CATALOGS = [f"c{n}" for n in range(40)]
"""More than there are threads of any kind."""


@pytest.fixture
def records(tmp_path):
    """Records of catalogs that all serve a release of the model `m` plus their id."""
    opened = Records.open(f"sqlite:///{tmp_path / 'records.db'}")
    for catalog_id in CATALOGS:
        serve(opened, catalog_id)
    yield opened
    opened.close()


def serve(records: Records, catalog_id: str) -> None:
    """Make a catalog with an active release."""
    records.catalogs.create(Catalog(catalog_id, (EventType("view"),)))
    records.models.create(replace(samples.model(f"m{catalog_id}"), catalog_id=catalog_id))
    publication = Operation(f"o{catalog_id}", catalog_id, OperationKind.PUBLISH, {})
    records.operations.create(publication, exclusive=False)
    claimed = records.operations.claim("w", lease_s=60)
    release = replace(
        samples.release(f"r{catalog_id}", f"m{catalog_id}"),
        catalog_id=catalog_id,
        operation_id=claimed.id,
        attempt=claimed.attempts,
    )
    records.releases.finish(records.releases.begin(release))
    records.catalogs.activate(catalog_id, release.id)


@pytest.fixture
def stuck(tmp_path) -> list[Path]:
    """Manifests of the models that no read comes to the end of, until something is written."""
    pipes = [tmp_path / "artifacts" / f"m{catalog_id}" / "model.json" for catalog_id in CATALOGS]
    for pipe in pipes:
        pipe.parent.mkdir(parents=True)
        os.mkfifo(pipe)
    return pipes


async def test_loads_that_hang_leave_threads_to_others(records, stuck, tmp_path):
    """While an artifact store answers nobody, other work that blocks finds a thread."""
    artifacts = Artifacts(str(tmp_path / "artifacts"))
    active = ActiveReleases(records, artifacts, refresh_s=60)
    looks = [asyncio.create_task(active.get(catalog_id)) for catalog_id in CATALOGS]
    try:
        async with asyncio.timeout(5):
            for catalog_id in CATALOGS:
                await asyncio.to_thread(records.catalogs.get, catalog_id)
        done = [look for look in looks if look.done()]
    finally:
        await released(stuck, looks)
        artifacts.close()
    assert not done
    assert {type(look.exception()) for look in looks} == {DataLoss}


async def released(stuck: list[Path], looks: list[asyncio.Task]) -> None:
    """Let the reads that hang end, each with what is no manifest, until all looks are done."""
    while not all(look.done() for look in looks):
        for pipe in stuck:
            with contextlib.suppress(OSError):  # nobody reads it now
                end = os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
                os.write(end, b"no manifest")
                os.close(end)
        await asyncio.wait(looks, timeout=0.01)
