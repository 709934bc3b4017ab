"""The options that name a server, before a command and after it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import click

F = TypeVar("F", bound=Callable[..., None] | click.Command)


@dataclass(frozen=True, slots=True)
class Target:
    """The server that a command was told to call; what it was not told stands in the settings."""

    server: str | None = None
    tls: bool = False
    ca_file: Path | None = None

    def over(self, other: Target) -> Target:
        """This, with the other's where nothing was told."""
        return Target(
            self.server or other.server, self.tls or other.tls, self.ca_file or other.ca_file
        )


def server_options(command: F) -> F:
    """Options that say which server is called, and how; they become a Target."""
    for option in (
        click.option(
            "--ca-file",
            type=click.Path(path_type=Path, dir_okay=False),
            help="Speak TLS and trust these authorities, in PEM; also MILVINE_SERVER_CA_FILE.",
        ),
        click.option(
            "--tls", is_flag=True, help="Speak TLS with the server; also MILVINE_SERVER_TLS."
        ),
        click.option(
            "--server", metavar="HOST:PORT", help="The server to call; also MILVINE_SERVER."
        ),
    ):
        command = option(command)
    return command
