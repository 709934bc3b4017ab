"""A server behind TLS, and the commands that call it."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from milvine.server import running
from milvine.settings import Settings
from tests.servers.milvus import free_ports

SERVERS = Path(__file__).parents[1] / "servers"
DOCKERFILE = (Path(__file__).parents[2] / "Dockerfile").read_text()
CERTIFICATE, KEY = SERVERS / "localhost.pem", SERVERS / "localhost.key"


@pytest.fixture
async def server(tmp_path):
    """The settings of a server that speaks TLS, as variables."""
    (port,) = free_ports(1)
    given = Settings(
        _env_file=None,
        data_dir=tmp_path / "data",
        host="localhost",
        port=port,
        tls_cert_file=CERTIFICATE,
        tls_key_file=KEY,
        drain_s=0,
    )
    async with running(given, with_worker=False) as started:
        await asyncio.wait_for(started.stores.connected.wait(), 60)
        yield {
            "MILVINE_HOST": "localhost",
            "MILVINE_PORT": str(port),
            "MILVINE_DATA_DIR": str(given.data_dir),
        }


async def call(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command in a process of its own."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("MILVINE_")}
    return await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "milvine", *arguments, "--json"],
        env=inherited | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


async def test_the_check_of_the_image_takes_any_name(server, tmp_path):
    """The image's health check succeeds by the server's certificate, whatever name it has."""
    script = re.search(r"<<'EOT' /usr/local/bin/milvine-health\n(.*?)EOT\n", DOCKERFILE, re.DOTALL)
    (tmp_path / "check.py").write_text(script[1])
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, tmp_path / "check.py"],
        env=os.environ | server | {"MILVINE_TLS_CERT_FILE": str(CERTIFICATE)},
        timeout=30,
        check=False,
    )
    assert done.returncode == 0


@pytest.mark.parametrize("way", ["configured", "variables", "options", "options before"])
async def test_commands_speak_tls(server, way):
    """Commands call a TLS server by its own settings, by variables, and by options."""
    address = f"localhost:{server['MILVINE_PORT']}"
    named = ["--server", address, "--ca-file", str(CERTIFICATE)]
    done = await {
        "configured": lambda: call(
            server | {"MILVINE_TLS_CERT_FILE": str(CERTIFICATE), "MILVINE_TLS_KEY_FILE": str(KEY)},
            *("catalogs", "list"),
        ),
        "variables": lambda: call(
            {"MILVINE_SERVER": address, "MILVINE_SERVER_CA_FILE": str(CERTIFICATE)},
            *("catalogs", "list"),
        ),
        "options": lambda: call({}, "catalogs", "list", *named),
        "options before": lambda: call({}, *named, "catalogs", "list"),
    }[way]()
    assert json.loads(done.stdout) == {"catalogs": []}
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("arguments", "said"),
    [((), "--tls or --ca-file"), (("--tls",), "certificate")],
)
async def test_a_server_that_is_spoken_to_wrongly_is_no_absence(server, arguments, said):
    """Without TLS, or without trust, a command fails and starts no second server."""
    done = await call(server, "catalogs", "list", *arguments)
    assert done.returncode == 1
    assert json.loads(done.stdout)["error"]["code"] == "UNAVAILABLE"
    # gRPC's core tells of a failed handshake by itself.
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("Error:")]
    assert said in line
    assert server["MILVINE_PORT"] in line
    assert "inside this command" not in done.stderr
