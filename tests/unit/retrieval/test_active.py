"""Which release answers, also while the stores do not."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import warnings
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from milvine.artifacts import Artifacts
from milvine.domain.catalog import Catalog, EventType
from milvine.domain.entity import Side
from milvine.domain.errors import DataLoss, NotFound, Reason, Unavailable
from milvine.domain.operation import Operation, OperationKind
from milvine.records import Records
from milvine.retrieval import ActiveReleases
from milvine.retrieval.active import MOST_OTHERS
from tests.contracts.records import samples
from tests.made_model import store_model

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
    kinds = {type(look.exception()) for look in looks}
    with warnings.catch_warnings():  # fsspec leaves a pipe open, for it can't seek in one
        warnings.simplefilter("ignore", ResourceWarning)
        looks.clear()
        gc.collect()
    assert not done
    assert kinds == {DataLoss}


@pytest.fixture
def shop(tmp_path):
    """A catalog with more releases than stay loaded, each with an item; `r0` is active."""
    artifacts = Artifacts(str(tmp_path / "artifacts"))
    records = Records.open(f"sqlite:///{tmp_path / 'shop.db'}")
    records.catalogs.create(Catalog("shop", (EventType("view"),)))
    for n in range(MOST_OTHERS + 2):
        model = store_model(records, artifacts, "shop", ["i"], np.ones((1, 2), np.float32))
        release_of(records, f"r{n}", model.id)
    records.catalogs.activate("shop", "r0")
    yield Shop(records, artifacts)
    artifacts.close()
    records.close()


@dataclass(frozen=True)
class Shop:
    """The stores of a catalog."""

    records: Records
    artifacts: Artifacts

    def releases(self, refresh_s: float = 3_600) -> ActiveReleases:
        """A process's look at it."""
        return ActiveReleases(self.records, self.artifacts, refresh_s=refresh_s)


def release_of(records: Records, release_id: str, model_id: str) -> None:
    """Make a release of the catalog `shop`."""
    publication = Operation(f"o{release_id}", "shop", OperationKind.PUBLISH, {})
    records.operations.create(publication, exclusive=False)
    claimed = records.operations.claim("w", lease_s=60)
    release = replace(
        samples.release(release_id, model_id),
        catalog_id="shop",
        operation_id=claimed.id,
        attempt=claimed.attempts,
    )
    records.releases.finish(records.releases.begin(release))


async def test_the_active_release_answers_also_by_its_name(shop):
    """It is the very same then, so that requests of both kinds travel together."""
    releases = shop.releases()

    active = await releases.get("shop")

    assert active.release.id == "r0"
    assert await releases.get("shop", "r0") is active
    assert active.layout(Side.ITEM) is active.layout(Side.ITEM)
    assert active.scope(Side.USER) is active.scope(Side.USER)


async def test_few_releases_that_are_not_active_stay_loaded(shop):
    """Those that were asked for last; another one is loaded anew."""
    releases = shop.releases()
    first = await releases.get("shop", "r1")
    others = [f"r{n + 2}" for n in range(MOST_OTHERS - 1)]
    for release_id in (*others, "r1"):
        await releases.get("shop", release_id)

    assert await releases.get("shop", "r1") is first

    for release_id in (*others, f"r{MOST_OTHERS + 1}"):
        await releases.get("shop", release_id)
    assert await releases.get("shop", "r1") is not first


async def test_the_release_before_stays_loaded(shop):
    """Pages of its lists go on, and a rollback costs no load."""
    releases = shop.releases()
    before = await releases.get("shop")
    shop.records.catalogs.activate("shop", "r1")
    releases.forget("shop")
    after = await releases.get("shop")

    pinned = await releases.get("shop", "r0")

    assert (after.release.id, pinned.release.id) == ("r1", "r0")
    assert pinned.served is before.served


async def test_an_activation_by_another_process_shows_in_time(shop):
    """With it the release that was active goes on under its name."""
    releases = shop.releases(refresh_s=0)
    before = await releases.get("shop")
    shop.records.catalogs.activate("shop", "r1")

    assert (await releases.get("shop")).release.id == "r1"
    assert (await releases.get("shop", "r0")).served is before.served


async def test_a_deletion_shows_in_time(shop):
    """What is loaded does not hide that a release is gone."""
    releases = shop.releases(refresh_s=0)
    await releases.get("shop", "r1")
    shop.records.releases.delete("r1")

    for _ in range(2):
        with pytest.raises(NotFound) as fault:
            await releases.get("shop", "r1")
        assert fault.value.reason is Reason.RELEASE_NOT_FOUND


async def test_what_is_known_goes_on_without_the_records(shop, tmp_path):
    """Of others it is said that the records do not answer."""
    releases = shop.releases(refresh_s=0)
    known = await releases.get("shop", "r1")
    shop.records.close()
    for file in tmp_path.glob("shop.db*"):
        file.unlink()
    (tmp_path / "shop.db").mkdir()

    assert await releases.get("shop", "r1") is known
    with pytest.raises(Unavailable):
        await releases.get("shop", "r2")


async def released(stuck: list[Path], looks: list[asyncio.Task]) -> None:
    """Let the reads that hang end, each with what is no manifest, until all looks are done."""
    while not all(look.done() for look in looks):
        for pipe in stuck:
            with contextlib.suppress(OSError):  # nobody reads it now
                end = os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
                os.write(end, b"no manifest")
                os.close(end)
        await asyncio.wait(looks, timeout=0.01)
