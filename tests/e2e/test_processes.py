"""Several server processes at one port: each answers, none is missed, all end together."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from milvine.client import Client, Interaction
from milvine.v1 import catalog_service_pb2 as pb
from milvine.v1 import catalog_service_pb2_grpc
from tests.servers.milvine import MilvineServer
from tests.servers.milvus import free_ports
from tests.servers.postgres import fresh_database

LONG_S = 120.0
PROCESSES = 2


@pytest.fixture(scope="module", params=["embedded", "deployed"])
def server(request, tmp_path_factory):
    """A supervisor with two processes, over embedded stores and over deployed ones."""
    (metrics_port,) = free_ports(1)
    settings = {"MILVINE_PROCESSES": str(PROCESSES), "MILVINE_METRICS_PORT": str(metrics_port)}
    if request.param == "deployed":
        settings |= {
            "MILVINE_RECORDS_URL": fresh_database(request.getfixturevalue("postgres_url")),
            "MILVINE_VECTORS_URI": request.getfixturevalue("milvus_uri"),
        }
    running = MilvineServer(tmp_path_factory.mktemp("processes"), settings)
    running.metrics = f"http://127.0.0.1:{metrics_port}/metrics"
    running.start()
    yield running
    assert running.stop() == 0


async def ask(address: str) -> None:
    """Make a call over a connection of its own; the kernel chooses who gets it."""
    options = [("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.insecure_channel(address, options) as channel:
        stub = catalog_service_pb2_grpc.CatalogServiceStub(channel)
        await stub.ListCatalogs(pb.ListCatalogsRequest(), timeout=10, wait_for_ready=True)


def answered(server: MilvineServer) -> set[int]:
    """The processes whose log says that they answered such a call."""
    lines = server.log().splitlines()[1:]  # the first is cut off
    events = [json.loads(line) for line in lines if line.startswith("{")]
    return {e["pid"] for e in events if e.get("method", "").endswith("ListCatalogs")}


async def until_answered(server: MilvineServer, pids: set[int]) -> None:
    """Ask until each of the processes has answered."""
    async with asyncio.timeout(LONG_S):
        while not pids <= answered(server):
            await ask(server.address)


async def healthy(address: str) -> bool:
    """Whether the process that gets this connection says SERVING."""
    options = [("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.insecure_channel(address, options) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        answer = await stub.Check(health_pb2.HealthCheckRequest(), timeout=10)
    return answer.status == health_pb2.HealthCheckResponse.SERVING


async def test_each_process_answers(server):
    """Connections reach every process, and the log says which one answered a call."""
    pids = set(server.member_pids(PROCESSES))

    await until_answered(server, pids)

    assert answered(server) <= pids


async def test_what_one_wrote_another_serves(server):
    """A catalog made, trained and published over one connection serves over all of them."""
    async with Client(server.address) as client:
        await client.create_catalog("shared", event_types=["view"])
        views = [Interaction(f"u{u}", f"i{(u + k) % 40}") for u in range(30) for k in range(10)]
        await client.record("shared", views)
        model = await (await client.train("shared", als={"embedding_size": 4})).result(LONG_S)
        release = await (await client.publish(model.model_id)).result(LONG_S)

    async def recommend() -> tuple[str, list[str]]:
        async with Client(server.address) as client:
            found = await client.recommend("shared", user="u1", strong=True)
        return found.release_id, [hit.id for hit in found.hits]

    answers = [await recommend() for _ in range(8)]

    assert {release_id for release_id, _ in answers} == {release.release_id}
    assert len({tuple(ids) for _, ids in answers}) == 1


async def test_metrics_are_summed(server):
    """One endpoint counts the calls of all processes."""

    def count() -> float:
        with urllib.request.urlopen(server.metrics, timeout=10) as page:  # noqa: S310 - our own
            text = page.read().decode()
        pattern = r"milvine_grpc_calls_total\{.*ListCatalogs.*\} (\S+)"
        return sum(float(found) for found in re.findall(pattern, text))

    await until_answered(server, set(server.member_pids(PROCESSES)))
    before = await asyncio.to_thread(count)

    for _ in range(10):
        await ask(server.address)

    async with asyncio.timeout(10):  # a call is counted just after its answer
        while await asyncio.to_thread(count) != before + 10:  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.02)


async def test_a_killed_process_comes_back(server):
    """While one is gone the others answer, also from the embedded Milvus; then another starts."""
    gone, stays = server.member_pids(PROCESSES)

    os.kill(gone, signal.SIGKILL)
    async with asyncio.timeout(10):
        while gone in server.pids(b"milvine", PROCESSES + 1):  # noqa: ASYNC110 - the kernel's
            await asyncio.sleep(0.01)
    for _ in range(10):
        await ask(server.address)
        assert await healthy(server.address)

    back = await asyncio.to_thread(server.member_pids, PROCESSES)
    assert stays in back
    assert gone not in back
    await until_answered(server, set(back))


async def test_the_port_of_a_supervisor_is_taken(server, tmp_path):
    """Neither a server nor another supervisor can listen there: both say so, and end."""
    for processes in ("1", "2"):
        refused = await asyncio.to_thread(serve, server.address, processes, tmp_path)

        assert refused.returncode == 1
        assert "another process does" in refused.stderr
        assert json.loads(refused.stdout)["error"]["violations"][0]["field"].startswith("MILVINE")


async def test_the_port_of_a_stranger_is_taken(tmp_path):
    """A supervisor at a port at which anything listens says so, and starts nothing."""
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        address = f"127.0.0.1:{stranger.getsockname()[1]}"
        refused = await asyncio.to_thread(serve, address, "2", tmp_path)

    assert refused.returncode == 1
    assert "another process does" in refused.stderr


async def test_none_outlives_a_killed_supervisor(tmp_path):
    """When the supervisor is killed, its processes drain and end, too."""
    server = MilvineServer(tmp_path, {"MILVINE_PROCESSES": "2", "MILVINE_DRAIN_S": "1"})
    server.start()
    server.member_pids(PROCESSES)

    await asyncio.to_thread(server.kill)  # asserts that no child is left


def serve(address: str, processes: str, folder) -> subprocess.CompletedProcess[str]:
    """Try to serve at an address."""
    host, port = address.split(":")
    command = ["serve", "--host", host, "--port", port, "--processes", processes, "--json"]
    return subprocess.run(
        [sys.executable, "-m", "milvine", *command],
        env=os.environ | {"MILVINE_DATA_DIR": str(folder)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
