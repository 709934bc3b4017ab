"""Milvus for tests: the oldest supported server from its wheel, and an embedded Lite."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

from milvus import MilvusServerConfig, _initialize_data_files
from pymilvus import MilvusClient, MilvusException

START_SECONDS = 120.0
STOP_SECONDS = 30.0


class MilvusServer:
    """A standalone Milvus 2.3.5 with all it stores in a directory and every port its own.

    The wheel's own launcher leaves the server behind when it is terminated and can't move etcd's
    ports, so its parts are used without it.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory.absolute()
        config = MilvusServerConfig(data_dir=str(self._directory))
        names = [name for name in config.configurable_items if name.endswith("_port")]
        *ports, self._health_port, etcd_clients, etcd_peers = free_ports(len(names) + 3)
        config.update(**dict(zip(names, ports, strict=True)))
        config.resolve()
        _initialize_data_files(str(self._directory))
        etcd = self._directory / "configs" / "etcd.yaml"
        etcd.write_text(_etcd_config(etcd_clients, etcd_peers))
        self._environment = os.environ | {
            "DEPLOY_MODE": "STANDALONE",
            "ETCD_CONFIG_PATH": str(etcd),
            "LD_LIBRARY_PATH": str(self._directory / "bin"),
            "METRICS_PORT": str(self._health_port),
            "MILVUS_RUN_DIR": str(self._directory / "run"),
        }
        self._process: subprocess.Popen[bytes] | None = None
        self.uri = f"http://127.0.0.1:{config.get('proxy_port')}"

    def start(self) -> None:
        """Start the server, also again after `kill`, and wait until it serves."""
        with (self._directory / "milvus.log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._directory / "bin" / "milvus", "run", "standalone"],
                cwd=self._directory,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            self._wait()
        except BaseException:
            self.kill()
            raise

    def kill(self) -> None:
        """Kill the server's process group and wait until none of it is left."""
        if self._process is None:
            return
        group = self._process.pid
        _signal_group(group, signal.SIGKILL)
        self._process.wait(STOP_SECONDS)
        deadline = time.monotonic() + STOP_SECONDS
        while _signal_group(group, 0):
            assert time.monotonic() < deadline, f"process group {group} outlives SIGKILL"
            time.sleep(0.01)
        self._process = None

    def _wait(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not (self._is_healthy() and self._serves()):
            assert self._process is not None
            assert self._process.poll() is None, f"Milvus died, see {self._directory}/milvus.log"
            assert time.monotonic() < deadline, f"Milvus hangs, see {self._directory}/milvus.log"
            time.sleep(0.1)

    def _is_healthy(self) -> bool:
        try:
            with urlopen(f"http://127.0.0.1:{self._health_port}/healthz", timeout=5) as reply:
                return b"OK" in reply.read()
        except (URLError, OSError):
            return False

    def _serves(self) -> bool:
        try:
            with closing(MilvusClient(self.uri, timeout=5, dedicated=True)) as client:
                client.list_collections(timeout=5)
        except MilvusException:
            return False
        return True


@contextmanager
def run_milvus(directory: Path) -> Iterator[str]:
    """Run a server in the directory, as a URI; afterwards none of its processes is left."""
    server = MilvusServer(directory)
    server.start()
    try:
        yield server.uri
    finally:
        server.kill()


@contextmanager
def run_lite(directory: Path) -> Iterator[str]:
    """Run an embedded Milvus that stores in the directory, as a URI."""
    from milvine.vectors import LiteProcess  # noqa: PLC0415 - the server needs no adapter

    with closing(LiteProcess.open(directory / "milvus.db")) as lite:
        yield lite.uri


def free_ports(count: int) -> list[int]:
    """Ports that nothing listens on, all different."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def _signal_group(group: int, number: int) -> bool:
    """Signal a process group; whether there is one."""
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return False
    return True


def _etcd_config(clients: int, peers: int) -> str:
    """The embedded etcd, which opens its two ports though nothing else uses them."""
    return f"""\
name: default
listen-client-urls: http://127.0.0.1:{clients}
advertise-client-urls: http://127.0.0.1:{clients}
listen-peer-urls: http://127.0.0.1:{peers}
initial-advertise-peer-urls: http://127.0.0.1:{peers}
initial-cluster: default=http://127.0.0.1:{peers}
unsafe-no-fsync: true
"""
