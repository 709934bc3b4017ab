"""The parts of a supervisor: the port that it holds, and processes that can't start."""

from __future__ import annotations

import asyncio
import socket

import pytest

from milvine import supervisor
from milvine.attached import Attached
from milvine.domain.errors import FailedPrecondition, InvalidArgument
from milvine.settings import Settings

SECONDS = 60


def listen(port: int, *, shared: bool) -> socket.socket:
    """Listen as a server does."""
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, int(shared))
    made.bind(("127.0.0.1", port))
    made.listen()
    return made


def test_a_reserved_port_is_shared_with_its_own():
    """Port 0 takes a free one, at which several processes may listen that share it."""
    with supervisor.reserved("127.0.0.1", 0) as port:
        assert port > 0
        with listen(port, shared=True), listen(port, shared=True):
            pass


@pytest.mark.parametrize("shared", [False, True])
def test_a_port_of_others_is_not_reserved(shared):
    """A port at which something listens is taken, whether that would share it or not."""
    with (
        listen(0, shared=shared) as other,
        pytest.raises(InvalidArgument) as fault,
        supervisor.reserved("127.0.0.1", other.getsockname()[1]),
    ):
        pass
    assert "another process does" in str(fault.value)


@pytest.mark.parametrize("host", ["192.0.2.1", "no such host"])
def test_a_host_that_is_not_here(host):
    """An address of another machine, and none at all, are told by the setting."""
    with pytest.raises(InvalidArgument) as fault, supervisor.reserved(host, 0):
        pass
    assert fault.value.violations[0].field == "MILVINE_HOST and MILVINE_PORT"


async def test_a_process_that_can_t_start_is_told(capfd):
    """A process that ends with an error before it said a word has refused."""
    process = Attached("no-such-command")
    running = asyncio.create_task(process.run())
    await asyncio.wait_for(process.refused.wait(), SECONDS)

    running.cancel()
    await asyncio.wait([running])

    assert not process.started.is_set()
    assert "no-such-command" in capfd.readouterr().err


async def test_a_supervisor_whose_processes_can_t_start_ends(tmp_path, monkeypatch):
    """It does not try for ever what never worked."""
    made = iter(Attached("no-such-command") for _ in range(3))
    monkeypatch.setattr(supervisor, "_member", lambda *_: next(made))
    settings = Settings(_env_file=None, data_dir=tmp_path / "data", port=0, processes=3)

    with pytest.raises(FailedPrecondition, match="can't start"):
        await asyncio.wait_for(supervisor.supervise(settings, with_worker=False), SECONDS)
