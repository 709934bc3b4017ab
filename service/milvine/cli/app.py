"""The command `milvine` and its table of commands."""

from __future__ import annotations

import os
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

import click

from milvine.cli.options import Target, server_options


@dataclass(frozen=True, slots=True)
class _Entry:
    """Where a command is, and what `milvine --help` says of it."""

    place: str
    summary: str


_COMMANDS = {
    "serve": _Entry("processes:serve", "Serve gRPC, with a worker beside it."),
    "worker": _Entry("processes:worker", "Do the long work of a deployment."),
    "config": _Entry("processes:config", "Show the effective settings."),
    "catalogs": _Entry("catalogs:catalogs", "Create, list, show and delete catalogs."),
    "import": _Entry("imports:import_", "Import interactions, items or users from a file."),
    "train": _Entry("training:train", "Train a model, and measure it on held-out data."),
    "tune": _Entry("tuning:tune", "Search for the settings that do best."),
    "evaluate": _Entry("measuring:evaluate", "Measure a model again, or what its index loses."),
    "compare": _Entry("comparing:compare", "Print models side by side."),
    "models": _Entry("training:models", "List the models of a catalog."),
    "curve": _Entry("curves:curve", "Show how a model's loss fell."),
    "publish": _Entry("releases:publish", "Bring a model into service."),
    "releases": _Entry("releases:releases", "List, activate, roll back and delete releases."),
    "recommend": _Entry("retrieval:recommend", "Recommend items to a user, or by taste."),
    "recommend-all": _Entry("bulk:recommend_all", "Recommend items to every user, into a file."),
    "rank": _Entry("fitting:rank", "Put named items into the order in which they fit someone."),
    "audience": _Entry("fitting:audience", "Find the users whom an item fits."),
    "similar": _Entry("retrieval:similar", "Find items like an item, or users like a user."),
    "search": _Entry("searching:search", "Find items by what they say."),
    "popular": _Entry("retrieval:popular", "Find what trends, or was ever popular."),
    "history": _Entry("retrieval:history", "Show what a user did, latest first."),
    "operations": _Entry("operations:operations", "List long work, or cancel it."),
}
_POLL_IN_QUEUE = "-event_engine_client,-event_engine_listener"
"""Lets the thread that waits for gRPC's events read the sockets, too, instead of threads that hand
each event on: a lone request took a third less CPU so, one of many a fifth."""


class _Commands(click.Group):
    """A group that imports a command's module when the command is called.

    So `milvine --help` answers at once, and only `serve` and `worker` wait for torch.
    """

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's own
        return list(_COMMANDS)

    def get_command(
        self,
        ctx: click.Context,  # noqa: ARG002 - click's own
        cmd_name: str,
    ) -> click.Command | None:
        entry = _COMMANDS.get(cmd_name)
        if entry is None:
            return None
        module, name = entry.place.split(":")
        os.environ.setdefault("GRPC_EXPERIMENTS", _POLL_IN_QUEUE)  # grpc, which it loads, reads it
        command: click.Command = getattr(import_module(f"milvine.cli.{module}"), name)
        return command

    def format_commands(
        self,
        ctx: click.Context,  # noqa: ARG002 - click's own
        formatter: click.HelpFormatter,
    ) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.summary) for name, entry in _COMMANDS.items()])


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(version("milvine"), prog_name="milvine")
@server_options
@click.pass_context
def main(ctx: click.Context, *, server: str | None, tls: bool, ca_file: Path | None) -> None:
    """Train embeddings, keep them in Milvus, and serve filtered, ranked recommendations.

    Settings come from MILVINE_… variables and a .env file; `milvine config` shows them. Without a
    server at the configured address, commands run one inside themselves. Options that name the
    server may stand before the command or after it.
    """
    ctx.obj = Target(server, tls, ca_file)
