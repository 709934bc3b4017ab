"""What the server offers beside its own services."""

from __future__ import annotations

import asyncio
import shutil
import sys
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from milvine.api import SERVICE_NAMES, build_server
from tests.integration.api.conftest import RecordsOnly


async def test_reflection_lists_services(api):
    """Reflection names every service, and describes operations too."""
    stub = reflection_pb2_grpc.ServerReflectionStub(api.channel)
    requests = [
        reflection_pb2.ServerReflectionRequest(list_services=""),
        reflection_pb2.ServerReflectionRequest(
            file_containing_symbol="google.longrunning.Operations"
        ),
    ]
    listed, described = [a async for a in stub.ServerReflectionInfo(iter(requests))]
    names = {service.name for service in listed.list_services_response.service}
    assert names >= {*SERVICE_NAMES, "grpc.health.v1.Health"}
    assert described.file_descriptor_response.file_descriptor_proto


async def test_buf_curl(api):
    """`buf curl` calls a method without any protos."""
    buf = shutil.which("buf", path=str(Path(sys.executable).parent))
    address = f"http://{api.address}/milvine.v1.CatalogService/ListCatalogs"
    process = await asyncio.create_subprocess_exec(
        *(buf, "curl", "--protocol", "grpc", "--http2-prior-knowledge", "-d", "{}", address),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode == 0, err
    assert out.strip().startswith(b"{")


async def test_health(api):
    """The server says that it serves."""
    stub = health_pb2_grpc.HealthStub(api.channel)
    answer = await stub.Check(health_pb2.HealthCheckRequest())
    assert answer.status == health_pb2.HealthCheckResponse.SERVING


async def test_a_port_has_one_server(api_records):
    """A second server is told that the port is taken."""
    one, other = (build_server(RecordsOnly(api_records)) for _ in range(2))
    port = one.add_insecure_port("127.0.0.1:0")
    with pytest.raises(RuntimeError):
        other.add_insecure_port(f"127.0.0.1:{port}")
    for server in (one, other):
        await server.start()
        await server.stop(None)


async def test_large_request(api):
    """A request of more than gRPC's usual 4 MiB is taken; one over the limit is refused."""
    call = api.channel.unary_unary("/milvine.v1.CatalogService/GetCatalog")
    for size, code in (
        (5 * 2**20, grpc.StatusCode.INVALID_ARGUMENT),
        (65 * 2**20, grpc.StatusCode.RESOURCE_EXHAUSTED),
    ):
        try:
            await call(b"\x0a" + _varint(size) + b"a" * size)
        except grpc.aio.AioRpcError as exc:
            assert exc.code() is code  # noqa: PT017 - two codes


def _varint(number):
    groups = []
    while number > 127:
        groups.append(number & 127 | 128)
        number >>= 7
    return bytes([*groups, number])
