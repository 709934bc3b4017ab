"""The image and the composed deployment agree with the settings and with their own promises."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from milvine.settings import Settings

ROOT = Path(__file__).parents[2]
COMPOSE = (ROOT / "docker-compose.yml").read_text()
DOCKERFILE = (ROOT / "Dockerfile").read_text()
SERVICES = yaml.safe_load(COMPOSE)["services"]
VOLUMES = yaml.safe_load(COMPOSE)["volumes"]


@pytest.mark.parametrize("text", [COMPOSE, DOCKERFILE], ids=["compose", "image"])
def test_every_variable_is_a_setting(text: str):
    """A misspelt MILVINE_ variable would be ignored in silence, so each must be a setting."""
    named = {name.lower() for name in re.findall(r"\bMILVINE_(\w+)", text)}
    assert named
    assert named <= Settings.model_fields.keys()


def test_settings_accept_what_the_server_is_given(monkeypatch: pytest.MonkeyPatch):
    """The server's environment, with the defaults filled in, makes settings of these stores."""
    for name, text in SERVICES["milvine"]["environment"].items():
        monkeypatch.setenv(name, re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text))
    settings = Settings(_env_file=None)
    assert settings.records == "postgresql://milvine:local-only@postgres:5432/milvine"
    assert settings.vectors_uri == "http://milvus:19530"
    assert settings.lite_file is None
    assert (settings.host, settings.port, settings.metrics_port) == ("0.0.0.0", 50051, 9464)  # noqa: S104 - in a container


def test_server_and_worker_share_their_stores():
    """What the worker trains and publishes, the server must find."""
    server, worker = SERVICES["milvine"], SERVICES["worker"]
    assert worker["environment"].items() <= server["environment"].items()
    assert worker["volumes"] == server["volumes"]
    assert (server["command"], worker["command"]) == (["serve", "--no-worker"], ["worker"])


@pytest.mark.parametrize("name", SERVICES)
def test_images_are_pinned(name: str):
    """A deployment is the same tomorrow: images have a version, never a moving tag."""
    _, _, tag = SERVICES[name]["image"].rpartition(":")
    assert re.search(r"\d+\.\d+|\d{4}-\d{2}-\d{2}", tag)


@pytest.mark.parametrize("name", SERVICES)
def test_nothing_is_published_beyond_this_machine(name: str):
    """The default secrets are no secrets, so only the loopback interface may see a port."""
    assert all(port.startswith("127.0.0.1:") for port in SERVICES[name].get("ports", ()))


@pytest.mark.parametrize("name", SERVICES)
def test_dependencies_are_awaited_until_healthy(name: str):
    """A service starts when what it needs answers, which its own check must be able to tell."""
    for needed, how in SERVICES[name].get("depends_on", {}).items():
        assert how == {"condition": "service_healthy"}
        assert "test" in SERVICES[needed]["healthcheck"]


@pytest.mark.parametrize("name", SERVICES)
def test_data_lives_in_named_volumes(name: str):
    """Containers are replaced without loss: what is mounted is a declared volume, not a folder."""
    mounts = SERVICES[name]["volumes"]
    assert mounts
    assert {mount.partition(":")[0] for mount in mounts} <= VOLUMES.keys()
