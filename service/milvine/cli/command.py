"""What every command shares: `--json`, the server to call, errors in one line, exit codes."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import TypeVar

import click

from milvine.cli.options import Target, server_options
from milvine.cli.output import Output
from milvine.cli.target import connected
from milvine.client import Client, RpcError
from milvine.client import Violation as RpcViolation
from milvine.domain.errors import MilvineError, Violation

FAILED = 1
INTERRUPTED = 130

Args = TypeVar("Args")
Command = Callable[..., None]


@dataclass(frozen=True, slots=True)
class Fault:
    """What a failed command says, wherever it failed."""

    code: str
    reason: str
    message: str
    metadata: Mapping[str, str]
    violations: tuple[Mapping[str, str], ...]

    @classmethod
    def of(cls, error: MilvineError | RpcError) -> Fault:
        """The fault of an error, of this process or of the server."""
        code = error.code.name if isinstance(error, RpcError) else error.code
        violations: Sequence[Violation | RpcViolation] = getattr(error, "violations", ())
        told = tuple({"field": v.field, "description": v.description} for v in violations)
        return cls(code, str(error.reason), error.message, error.metadata, told)


@dataclass(frozen=True, slots=True)
class Local:
    """What a command that calls no server works with."""

    output: Output


@dataclass(frozen=True, slots=True)
class Remote:
    """What a command that calls a server works with."""

    output: Output
    client: Client
    address: str


def local(args: Callable[..., Args]) -> Callable[[Callable[[Local, Args], None]], Command]:
    """A command that calls no server; its options become the `args`."""

    def decorate(body: Callable[[Local, Args], None]) -> Command:
        @_json_option
        @wraps(body)
        def command(*, as_json: bool, **values: object) -> None:
            output = Output.create(is_json=as_json)
            _guard(output, lambda: body(Local(output), args(**values)))

        return command

    return decorate


def remote(
    args: Callable[..., Args], *, needs_worker: bool = False
) -> Callable[[Callable[[Remote, Args], Awaitable[None]]], Command]:
    """A command that calls a server, with `needs_worker` one that does long work."""

    def decorate(body: Callable[[Remote, Args], Awaitable[None]]) -> Command:
        @server_options
        @_json_option
        @wraps(body)
        def command(
            *, server: str | None, tls: bool, ca_file: Path | None, as_json: bool, **values: object
        ) -> None:
            output = Output.create(is_json=as_json)
            before: Target = click.get_current_context().find_root().obj
            target = Target(server, tls, ca_file).over(before)
            asked = args(**values)

            async def call() -> None:
                async with connected(target, output, needs_worker=needs_worker) as (client, at):
                    await body(Remote(output, client, at), asked)

            _guard(output, lambda: asyncio.run(call()))

        return command

    return decorate


_json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON document in place of tables."
)


def _guard(output: Output, work: Callable[[], None]) -> None:
    """Do the work; errors become one line on stderr and an exit code, never a traceback."""
    try:
        work()
    except (MilvineError, RpcError) as error:
        _tell(output, Fault.of(error))
        sys.exit(FAILED)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except BrokenPipeError:  # the reader of a pipe has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(FAILED)
    except (click.ClickException, click.Abort):
        raise
    except Exception as error:  # the last resort: people get a line, who asks gets the traceback
        if os.environ.get("MILVINE_LOG_LEVEL", "").lower() == "debug":
            raise
        output.complain(
            f"a fault of milvine itself, {type(error).__name__}: {error}; "
            "MILVINE_LOG_LEVEL=debug shows where"
        )
        sys.exit(FAILED)


def _tell(output: Output, fault: Fault) -> None:
    if output.is_json:
        output.show({"error": fault})
    if len(fault.violations) <= 1:
        output.complain(fault.message)
        return
    output.complain(f"{len(fault.violations)} values break their rules:")
    output.detail(f"{v['field']}: {v['description']}" for v in fault.violations)
