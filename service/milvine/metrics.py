"""Metrics over HTTP: of one process, or summed over several that count into one folder.

The folder is that of prometheus_client's multiprocess mode: each process whose environment names it
keeps its numbers in files there.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

from milvine.domain.errors import InvalidArgument
from milvine.settings import Settings, joined

FOLDER_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"


@contextmanager
def serve_metrics(settings: Settings, registry: CollectorRegistry) -> Iterator[None]:
    """Serve metrics, if there is a port for them, until the block ends.

    Raises:
        InvalidArgument: The port is taken.
    """
    if not settings.metrics_port:
        yield
        return
    try:
        http, thread = start_http_server(settings.metrics_port, settings.host, registry)
    except OSError as exc:
        raise InvalidArgument.at(
            "MILVINE_METRICS_PORT",
            f"can't listen at {joined(settings.host, settings.metrics_port)}: {exc.strerror}",
        ) from exc
    try:
        yield
    finally:
        http.shutdown()
        http.server_close()
        thread.join()


def summed(folder: Path) -> CollectorRegistry:
    """The metrics of all processes that count into the folder; ended ones keep their counts."""
    registry = CollectorRegistry()
    MultiProcessCollector(registry, str(folder))  # type: ignore[no-untyped-call]
    return registry


def forget(folder: Path, pid: int) -> None:
    """Leave what an ended process had under way out of the sum."""
    mark_process_dead(pid, str(folder))  # type: ignore[no-untyped-call]
