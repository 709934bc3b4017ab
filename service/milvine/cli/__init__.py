"""The `milvine` command: one module a group of commands, each loaded when it is called."""

from milvine.cli.app import main

__all__ = ["main"]
