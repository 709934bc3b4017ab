"""What benchmarks have in common: progress for people on stderr, one JSON object on stdout."""

from __future__ import annotations

import json
import signal
import sys
import time
from collections.abc import Mapping
from typing import Self

from rich.console import Console

console = Console(stderr=True, highlight=False)


class Stopwatch:
    """The seconds that a block takes."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __enter__(self) -> Self:
        self.seconds = -time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds += time.perf_counter()


def finish(result: Mapping[str, object]) -> None:
    """Print the result as the last line of stdout."""
    sys.stdout.write(json.dumps(result) + "\n")
    sys.stdout.flush()


def stop_cleanly_on_sigterm() -> None:
    """Let SIGTERM leave every block, so that what was started is stopped."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
