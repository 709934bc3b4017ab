"""A milvine server with its worker, as processes of their own on a free port and a fresh folder."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from milvine.domain.catalog import IndexKind
from milvine.settings import Settings
from tests.servers.milvus import free_ports, run_lite, run_milvus

START_S = 120.0
STOP_S = 30.0


class Engine(StrEnum):
    """What keeps the vectors."""

    LITE = "lite"
    """The embedded Milvus."""
    SERVER = "server"
    """The real server of the wheel."""

    @property
    def index(self) -> IndexKind:
        """The index that milvine chooses there."""
        return IndexKind.FLAT if self is Engine.LITE else IndexKind.HNSW

    @contextmanager
    def run(self, folder: Path) -> Iterator[str]:
        """Run it on its own, as a URI."""
        starting = run_lite(folder) if self is Engine.LITE else run_milvus(folder / "milvus")
        with starting as uri:
            yield uri


@dataclass(frozen=True, slots=True)
class Deployment:
    """A server that answers."""

    address: str
    settings: Settings
    """Its settings, for what looks into its stores."""
    pid: int
    """Its process, for what looks at the CPU that it takes."""


@contextmanager
def deployment(
    folder: Path,
    engine: Engine,
    *,
    processes: int = 1,
    environment: Mapping[str, str] = MappingProxyType({}),
) -> Iterator[Deployment]:
    """Run a server of some processes, its worker and the engine; nothing is left afterwards.

    `environment` has further settings.
    """
    milvus = nullcontext("") if engine is Engine.LITE else engine.run(folder)
    with milvus as uri:
        (port,) = free_ports(1)
        settings = Settings(
            _env_file=None,
            data_dir=folder / "milvine",
            vectors_uri=uri,
            port=port,
            processes=processes,
        )
        with _process(folder, _environment(settings) | environment, settings) as pid:
            yield Deployment(f"127.0.0.1:{port}", settings, pid)


@contextmanager
def _process(folder: Path, environment: Mapping[str, str], settings: Settings) -> Iterator[int]:
    log = folder / "milvine.log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "milvine", "serve"],
            cwd=folder,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
        )
    try:
        _wait(process, settings, log)
        yield process.pid
    finally:
        process.terminate()
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _environment(settings: Settings) -> dict[str, str]:
    given = {name: v for name, v in os.environ.items() if not name.startswith("MILVINE_")}
    return given | {
        "MILVINE_DATA_DIR": str(settings.data_dir),
        "MILVINE_VECTORS_URI": settings.vectors_uri,
        "MILVINE_PORT": str(settings.port),
        "MILVINE_PROCESSES": str(settings.processes),
        "MILVINE_LOG_LEVEL": "warning",
    }


def _wait(process: subprocess.Popen[bytes], settings: Settings, log: Path) -> None:
    """Wait until health says SERVING."""
    deadline = time.monotonic() + START_S
    with grpc.insecure_channel(f"127.0.0.1:{settings.port}") as channel:
        while not _is_serving(health_pb2_grpc.HealthStub(channel)):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the server does not serve:\n{log.read_text()[-2_000:]}")
            time.sleep(0.1)


def _is_serving(health: health_pb2_grpc.HealthStub) -> bool:
    try:
        answer = health.Check(health_pb2.HealthCheckRequest(), timeout=5, wait_for_ready=False)
    except grpc.RpcError:
        return False
    return answer.status == health_pb2.HealthCheckResponse.SERVING
