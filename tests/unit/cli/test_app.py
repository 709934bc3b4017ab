"""The command as a whole: help, usage errors, exit codes."""

from __future__ import annotations

import subprocess
import sys

import click
import pytest
from click.testing import CliRunner

from milvine.cli import main
from tests.servers.milvus import free_ports

HEAVY = ("torch", "pymilvus", "milvus_lite")


def commands(group: click.Group, path: tuple[str, ...] = ()):
    """Every command under the group, with the words that call it."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name), command


ALL = dict(commands(main))


@pytest.mark.parametrize("path", ALL, ids=" ".join)
def test_every_command_speaks_json(path):
    """Every command has `--json`."""
    assert "--json" in [name for option in ALL[path].params for name in option.opts]


@pytest.mark.parametrize("path", ALL, ids=" ".join)
def test_every_command_explains_itself(path):
    """`--help` of every command says what it does, and ends well."""
    result = CliRunner().invoke(main, [*path, "--help"])
    assert result.exit_code == 0
    assert ALL[path].help


def test_commands_start_quickly():
    """No command loads torch or a client of the vector store before it runs."""
    code = (
        "import sys; from milvine.cli import main; "
        "[main.get_command(None, name) for name in main.list_commands(None)]; "
        f"print([name for name in {HEAVY} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "arguments",
    [
        ["unknown"],
        ["recommend", "films"],
        ["recommend", "films", "--user", "1", "--history", "2"],
        ["recommend", "films", "--user", "1", "-k", "0"],
        ["similar", "films"],
        ["publish"],
        ["releases", "films", "--rollback", "--delete", "r1"],
        ["train", "films", "--family", "als", "--cutoffs", "ten"],
        ["train", "films", "--family", "als", "--set", "epochs"],
        ["train", "films"],
        ["train", "films", "--family", "magic"],
        ["serve", "--port", "70000"],
    ],
    ids=" ".join,
)
def test_usage_errors_exit_with_2(arguments, never_called):
    """A call that the command does not understand ends with 2, and calls no server."""
    result = CliRunner().invoke(main, ["--server", never_called, *arguments])
    assert result.exit_code == 2
    assert "Usage:" in result.stderr or "Error:" in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize("json_option", [[], ["--json"]])
def test_a_missing_server_is_said_in_one_line(json_option):
    """Where no server answers, the error names the address and the way out."""
    (port,) = free_ports(1)
    arguments = ["models", "films", "--server", f"127.0.0.1:{port}", *json_option]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 1
    assert len(result.stderr.splitlines()) == 1
    assert f"127.0.0.1:{port}" in result.stderr
    assert "milvine serve" in result.stderr


@pytest.fixture
def never_called():
    """The address of no server."""
    (port,) = free_ports(1)
    return f"127.0.0.1:{port}"


def test_grpc_is_set_up_before_it_is_loaded():
    """How it polls is read once, as it is loaded; a bogus experiment beside ours shows that."""
    code = (
        "import os; os.environ.pop('GRPC_EXPERIMENTS', None); import sys; "
        "import milvine.cli.app as app; assert 'grpc' not in sys.modules; "
        "app._POLL_IN_QUEUE += ',-no_such_experiment'; "
        "app.main(['serve', '--help'], standalone_mode=False); "
        "import grpc; grpc.insecure_channel('127.0.0.1:1').close()"
    )

    ran = subprocess.run(
        [sys.executable, "-c", code], check=False, capture_output=True, text=True, timeout=60
    )

    assert ran.returncode == 0, ran.stderr
    assert "no_such_experiment" in ran.stderr
    assert "event_engine" not in ran.stderr
