"""Processes that are killed in the middle of things: nothing acknowledged is lost, work goes on."""

from __future__ import annotations

import asyncio
import contextlib
import csv
import os
import resource
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from milvine.client import Client, Interaction, RpcError
from milvine.records import Records
from tests.servers.milvine import MilvineServer

LONG_S = 180.0
START = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def server(tmp_path):
    """A running server with its worker over embedded stores, for tests that kill it."""
    running = MilvineServer(tmp_path)
    running.start()
    yield running
    running.kill()


async def fill(client: Client, catalog_id: str, *, users: int = 60, items: int = 300) -> None:
    """A catalog with enough interactions to train on."""
    await client.create_catalog(catalog_id, event_types=["view"])
    await client.record(catalog_id, list(events(users, items)))


def events(users: int, items: int):
    """Every user views twenty items of a part of the catalog."""
    for user in range(users):
        for k in range(20):
            item = (user * 7 + k * 3) % items
            yield Interaction(f"u{user}", f"i{item}", event_time=START + timedelta(minutes=k))


async def publish_one(client: Client, catalog_id: str) -> tuple[str, str]:
    """Train and publish a small model; its id and its release's."""
    training = await client.train(catalog_id, als={"embedding_size": 8, "epochs": 3})
    model = await training.result(LONG_S)
    release = await (await client.publish(model.model_id)).result(LONG_S)
    return model.model_id, release.release_id


async def test_acknowledged_interactions_outlive_the_server(server):
    """A server killed in the middle of a stream has every batch that it acknowledged."""
    acknowledged = 0
    async with Client(server.address) as client:
        await client.create_catalog("streamed", event_types=["view"])
        with contextlib.suppress(RpcError):
            async for ack in client.stream_interactions("streamed", endless()):
                acknowledged += ack.written
                if acknowledged >= 5_000:
                    server.kill()

    server.start()

    async with Client(server.address) as client:
        found = [e async for e in client.interactions("streamed", "u0")]
    assert acknowledged >= 5_000
    numbers = sorted(int(event.item_id[1:]) for event in found)
    assert numbers[:acknowledged] == list(range(acknowledged))


async def endless():
    """One user's events without an end."""
    number = 0
    while True:
        yield Interaction("u0", f"i{number}", event_time=START + timedelta(seconds=number))
        number += 1


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
async def test_a_training_survives_its_worker(server, end):
    """The training of a worker that was killed, or stopped, ends well with the next one."""
    async with Client(server.address) as client:
        await fill(client, "trained")
        training = await client.train("trained", als={"embedding_size": 64, "epochs": 150})
        async for progress in training.watch():
            if progress.epochs:
                break

        os.kill(server.worker_pid(), end)
        model = await training.result(LONG_S)

        assert model.item_count == 300
        assert [m.model_id async for m in client.models("trained")] == [model.model_id]


async def test_a_training_goes_on_where_its_worker_died(server, tmp_path):
    """The next worker begins after the passes that were kept; the model is as of a straight run."""
    settings = {"embedding_size": 16, "epochs": 60, "batch_size": 32, "seed": 3}
    async with Client(server.address) as client:
        await fill(client, "resumed")
        training = await client.train("resumed", bpr=settings, holdout={"method": "METHOD_NONE"})
        async for progress in training.watch():
            if len(progress.epochs) > 3:
                break

        os.kill(server.worker_pid(), signal.SIGKILL)
        model = await training.result(LONG_S)

        assert model.epochs[:3] == list(progress.epochs[:3])  # to the nanoseconds that they took
        assert [epoch.epoch for epoch in model.epochs] == list(range(1, 61))
        straight = await client.train("resumed", bpr=settings, holdout={"method": "METHOD_NONE"})
        ids = (model.model_id, (await straight.result(LONG_S)).model_id)

    artifacts = tmp_path / "data" / "artifacts"
    first, second = ((artifacts / name / "weights.safetensors").read_bytes() for name in ids)
    assert first == second
    async with asyncio.timeout(LONG_S):
        while list(artifacts.glob("checkpoints-*")):  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.05)


async def test_a_training_whose_process_is_killed_fails_and_its_worker_goes_on(server):
    """The operation says what ended; nothing is made of it, and the next one ends well."""
    settings = {"embedding_size": 4, "epochs": 1_000, "batch_size": 64}
    async with Client(server.address) as client:
        await fill(client, "shared")
        training = await client.train("shared", softmax_mf=settings, process_count=3)
        async for progress in training.watch():
            if progress.epochs:
                break
        worker = server.worker_pid()
        os.kill(server.pids(b"spawn_main", 2, of=worker)[0], signal.SIGKILL)
        with pytest.raises(RpcError, match="processes of the training was ended by SIG") as failed:
            await training.result(LONG_S)
        assert failed.value.reason == "WORKER_LOST"
        assert server.pids(b"spawn_main", 0, of=worker) == []
        assert [model async for model in client.models("shared")] == []
        again = await client.train("shared", softmax_mf=settings | {"epochs": 2}, process_count=2)
        assert len((await again.result(LONG_S)).epochs) == 2
        assert server.worker_pid() == worker


async def test_a_training_in_processes_survives_its_worker(server):
    """When the worker is killed its processes end, too, and another one's go on with the passes."""
    settings = {"embedding_size": 4, "epochs": 60, "batch_size": 32, "seed": 3}
    none = {"method": "METHOD_NONE"}
    async with Client(server.address) as client:
        await fill(client, "shared")
        training = await client.train("shared", bpr=settings, holdout=none, process_count=2)
        async for progress in training.watch():
            if len(progress.epochs) > 3:
                break
        worker = server.worker_pid()
        (peer,) = server.pids(b"spawn_main", 1, of=worker)
        os.kill(worker, signal.SIGKILL)
        async with asyncio.timeout(LONG_S):
            while lives(peer):  # noqa: ASYNC110 - another process
                await asyncio.sleep(0.05)
        model = await training.result(LONG_S)
        assert model.epochs[:3] == list(progress.epochs[:3])
        straight = await client.train("shared", bpr=settings, holdout=none)
        losses = [[e.loss for e in m.epochs] for m in (model, await straight.result(LONG_S))]
        assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def lives(pid: int) -> bool:
    """Whether there is a process, also one of another parent."""
    return Path(f"/proc/{pid}").exists()


async def test_a_training_without_memory_fails_and_its_worker_goes_on(server):
    """The operation says what to lower; nothing is made of it, and the next one ends well."""
    async with Client(server.address) as client:
        await client.create_catalog("large", event_types=["view"])
        views = (Interaction(f"u{n % 99}", f"i{n}", event_time=START) for n in range(60_000))
        await client.record("large", views)
        small = await client.train("large", bpr={"embedding_size": 2, "epochs": 1})
        await small.result(LONG_S)
        worker = server.worker_pid()
        limit_memory(worker)

        training = await client.train("large", bpr={"embedding_size": 2_048})
        with pytest.raises(RpcError, match="lower embedding_size, which is 2,048") as failed:
            await training.result(LONG_S)
        again = await (await client.train("large", bpr={"embedding_size": 4})).result(LONG_S)

        assert failed.value.reason == "OUT_OF_MEMORY"
        assert len([model async for model in client.models("large")]) == 2
        assert (again.dimension, server.worker_pid()) == (4, worker)


def limit_memory(pid: int) -> None:
    """Leave a process 256 MiB more than it has."""
    used = int(Path(f"/proc/{pid}/statm").read_text().split()[0]) * resource.getpagesize()
    resource.prlimit(pid, resource.RLIMIT_AS, (used + 2**28, resource.RLIM_INFINITY))


async def test_a_publication_survives_server_and_worker(server):
    """Both killed while a release is built: the active one serves on, the new one gets built."""
    async with Client(server.address) as client:
        await fill(client, "published", users=400, items=3000)
        model_id, first = await publish_one(client, "published")
        before = await client.recommend("published", user="u1", page_size=20)
        publication = await client.publish(model_id)
        async for progress in publication.watch():
            if progress.stage:
                break
        server.kill()

    server.start()

    async with Client(server.address) as client:
        after = await client.recommend("published", user="u1", page_size=20)
        again = client.operation(publication.name)
        release = await again.result(LONG_S)
        served = await client.recommend("published", user="u1", page_size=20)

    assert after.release_id in (first, release.release_id)
    assert [hit.id for hit in after.hits] == [hit.id for hit in before.hits]
    assert [hit.id for hit in served.hits] == [hit.id for hit in before.hits]


async def test_an_import_is_completed_by_running_it_again(server, tmp_path):
    """An import killed in the middle leaves whole batches; the next run writes the rest once."""
    rows = 400_000
    async with Client(server.address) as client:
        await client.create_catalog("imported", event_types=["view"])
    path = tmp_path / "events.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["user_id", "item_id", "event_time"])
        writer.writerows((f"u{n % 5000}", f"i{n % 997}", 1_700_000_000 + n) for n in range(rows))
    command = [sys.executable, "-m", "milvine", "import", "interactions", "imported", str(path)]
    environment = os.environ | {"MILVINE_DATA_DIR": str(tmp_path / "data")}
    records = Records.open(f"sqlite:///{tmp_path / 'data' / 'records.db'}")
    importing = subprocess.Popen(  # noqa: ASYNC220 - returns at once
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    async with asyncio.timeout(LONG_S):
        while not records.interactions.count("imported"):  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.005)
    importing.kill()
    importing.wait()
    partly = records.interactions.count("imported")

    subprocess.run(  # noqa: ASYNC221 - nothing else to do
        command, env=environment, check=True, capture_output=True
    )

    assert 0 < partly <= rows
    assert records.interactions.count("imported") == rows
    records.close()
