"""`milvine serve | worker | config`: the processes of a deployment, and their settings."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from pathlib import Path

import click
import uvloop

from milvine.cli.command import Local, local
from milvine.cli.configuration import load_settings, masked
from milvine.cli.output import Column, table
from milvine.logs import configure_logs
from milvine.settings import MOST_PROCESSES, Settings

_PORT = click.IntRange(0, 65535)


@dataclass(frozen=True, slots=True)
class ServeArgs:
    """What `milvine serve` was asked."""

    host: str | None
    port: int | None
    processes: int | None
    metrics_port: int | None
    no_worker: bool
    member: bool

    def settings(self) -> Settings:
        """The settings, with what was asked in their place."""
        chosen = {
            "host": self.host,
            "port": self.port,
            "processes": self.processes,
            "metrics_port": self.metrics_port,
        }
        return load_settings().model_copy(
            update={name: value for name, value in chosen.items() if value is not None}
        )


@click.command()
@click.option("--host", metavar="ADDRESS", help="The address to serve on.")
@click.option("--port", type=_PORT, help="The port to serve gRPC on; 0 takes a free one.")
@click.option(
    "--processes",
    type=click.IntRange(1, MOST_PROCESSES),
    metavar="N",
    help="How many processes share the port.",
)
@click.option("--metrics-port", type=_PORT, help="The port of Prometheus metrics; 0 for none.")
@click.option("--no-worker", is_flag=True, help="Leave long work to `milvine worker` processes.")
@click.option("--member", is_flag=True, hidden=True, help="Be one of several processes.")
@local(ServeArgs)
def serve(here: Local, args: ServeArgs) -> None:
    """Serve gRPC until SIGTERM or Ctrl-C, with a worker beside it unless told not to."""
    settings = args.settings()
    has_members = settings.processes > 1 and not args.member
    configure_logs(settings, with_pid=has_members or args.member)

    def say(address: str) -> None:
        if here.output.is_json:
            here.output.line({"address": address, "pid": os.getpid()})
        else:
            here.output.note(f"Serving gRPC at {address}; Ctrl-C stops.")

    with_worker = not args.no_worker
    if has_members:
        from milvine.supervisor import supervise  # noqa: PLC0415 - loads the stores

        asyncio.run(supervise(settings, with_worker=with_worker, on_ready=say))
    else:
        from milvine.server import serve as run_server  # noqa: PLC0415 - torch takes seconds

        # A call on asyncio's own loop takes an eighth more of the CPU.
        uvloop.run(
            run_server(settings, with_worker=with_worker, is_member=args.member, on_ready=say)
        )


@dataclass(frozen=True, slots=True)
class WorkerArgs:
    """What `milvine worker` was asked."""

    attached: bool


@click.command()
@click.option("--attached", is_flag=True, hidden=True, help="Stop when stdin ends.")
@local(WorkerArgs)
def worker(here: Local, args: WorkerArgs) -> None:
    """Do the long work of a deployment until SIGTERM or Ctrl-C.

    Any number of workers can run beside any number of servers.
    """
    # Torch's threads spin while they wait for one another, unless told before it is loaded: beside
    # a busy server the first trainings then take ten times as long.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    from milvine.worker import work  # noqa: PLC0415 - torch takes seconds to load

    settings = load_settings()
    configure_logs(settings)

    def say() -> None:
        if here.output.is_json:
            here.output.line({"pid": os.getpid()})

    asyncio.run(work(settings, attached=args.attached, on_start=say))


@dataclass(frozen=True, slots=True)
class ConfigArgs:
    """What `milvine config` was asked: nothing but the settings."""


@click.command()
@local(ConfigArgs)
def config(here: Local, args: ConfigArgs) -> None:  # noqa: ARG001 - it takes no arguments
    """Show the effective settings and where each comes from, secrets masked."""
    settings = load_settings()
    given = {
        f"MILVINE_{name.upper()}": (masked(getattr(settings, name)), _origin(name, settings))
        for name in type(settings).model_fields
    }
    places = {
        "records": masked(settings.records),
        "vectors": masked(settings.vectors_uri or str(settings.lite_file)),
        "artifacts": masked(settings.artifacts),
    }
    here.output.show(
        {
            "settings": {name: value for name, (value, _) in given.items()},
            "origins": {name: origin for name, (_, origin) in given.items()},
            "stores": places,
        },
        table(
            [Column("setting", style="cyan"), Column("value"), Column("from", style="dim")],
            ((name, _plain(value), origin) for name, (value, origin) in given.items()),
        ),
        table([Column("store", style="cyan"), Column("is at")], places.items()),
    )


def _origin(name: str, settings: object) -> str:
    if name not in getattr(settings, "model_fields_set", ()):
        return "default"
    is_in_environment = any(key.upper() == f"MILVINE_{name.upper()}" for key in os.environ)
    return "environment" if is_in_environment else str(Path(".env"))


def _plain(value: object) -> object:
    return f"{value:g}" if isinstance(value, float) else value
