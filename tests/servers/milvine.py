"""A milvine server as a process of its own, which tests may kill."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.servers.milvus import free_ports

START_SECONDS = 90.0
STOP_SECONDS = 30.0


class MilvineServer:
    """`milvine serve` with the worker that it starts, over the stores of some settings."""

    def __init__(self, directory: Path, settings: Mapping[str, str] | None = None) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        (port,) = free_ports(1)
        self.address = f"127.0.0.1:{port}"
        self._log = directory / "milvine.log"
        # What this process was told, or told itself, is not for the server.
        inherited = {n: v for n, v in os.environ.items() if not n.startswith("MILVINE_")}
        self._environment = inherited | {
            "MILVINE_DATA_DIR": str(directory / "data"),
            "MILVINE_PORT": str(port),
            "MILVINE_LEASE_S": "2",
            "MILVINE_LOG_FORMAT": "json",
            **(settings or {}),
        }
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, *, until_serving: bool = True) -> None:
        """Start the server, also again after it ended."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "milvine", "serve"],
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        try:
            self.wait(serving=until_serving)
        except BaseException:
            self.kill()
            raise

    def wait(self, *, serving: bool) -> None:
        """Wait until the health service answers, and says SERVING where that is asked for."""
        deadline = time.monotonic() + START_SECONDS
        with grpc.insecure_channel(self.address) as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            while True:
                assert self._process is not None
                assert self._process.poll() is None, f"the server died:\n{self.log()}"
                assert time.monotonic() < deadline, f"the server hangs:\n{self.log()}"
                try:
                    reply = stub.Check(health_pb2.HealthCheckRequest(), timeout=1)
                except grpc.RpcError:
                    time.sleep(0.05)
                    continue
                if not serving or reply.status == health_pb2.HealthCheckResponse.SERVING:
                    return
                time.sleep(0.05)

    def worker_pid(self) -> int:
        """The process of the worker that the server started; waits for it."""
        return self.pids(b"worker", 1)[0]

    def member_pids(self, count: int) -> list[int]:
        """The server processes of a supervisor, by number; waits until there are so many."""
        return self.pids(b"--member", count)

    def pids(self, word: bytes, count: int, *, of: int = 0) -> list[int]:
        """The children with a word in their command, of a process or the server itself.

        Waits until there are so many.
        """
        assert self._process is not None
        parent = of or self._process.pid
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            found = [pid for pid in _children(parent) if word in _command(pid)]
            if len(found) == count:
                return found
            time.sleep(0.02)
        raise AssertionError(f"not {count} of {word!r}:\n{self.log()}")

    def kill(self) -> None:
        """Kill the server as a crash would; its worker ends by itself."""
        if self._process is None:
            return
        orphans = _children(self._process.pid)
        self._process.kill()
        self._process.wait(STOP_SECONDS)
        self._process = None
        _wait_gone(orphans)

    def stop(self) -> int:
        """Stop the server as an operator would; its exit status."""
        assert self._process is not None
        orphans = _children(self._process.pid)
        self._process.send_signal(signal.SIGTERM)
        status = self._process.wait(STOP_SECONDS)
        self._process = None
        _wait_gone(orphans)
        return status

    def log(self) -> str:
        """The end of what the server printed."""
        return self._log.read_text(errors="replace")[-8_000:]


def _children(pid: int) -> list[int]:
    started: list[int] = []
    for thread in Path(f"/proc/{pid}/task").glob("*/children"):  # a thread has its own
        with suppress(OSError):
            started += map(int, thread.read_text().split())
    return started


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""


def _wait_gone(pids: list[int]) -> None:
    deadline = time.monotonic() + STOP_SECONDS
    while any(_is_running(pid) for pid in pids):
        assert time.monotonic() < deadline, f"processes {pids} outlive their server"
        time.sleep(0.02)


def _is_running(pid: int) -> bool:
    try:
        return " Z " not in Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
