"""The folder or object store that artifacts and checkpoints lie in."""

from __future__ import annotations

import os
import secrets
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import fsspec
from fsspec.implementations.local import LocalFileSystem
from safetensors import SafetensorError

from milvine.domain.errors import InvalidArgument, Reason, Unavailable

T = TypeVar("T")


class Place:
    """Files under one URL, whose calls end within a deadline."""

    def __init__(self, url: str, timeout_s: float) -> None:
        """Take a folder's path or an fsspec URL.

        Raises:
            InvalidArgument: When nothing that is installed knows such a URL.
        """
        try:
            self.files, self._root = fsspec.core.url_to_fs(url)
        except (ValueError, ImportError) as exc:
            scheme = url.partition(":")[0]
            raise InvalidArgument.at(
                "MILVINE_ARTIFACTS_URL",
                f"no package for {scheme}: URLs of fsspec is installed here",
            ) from exc
        self._timeout_s = timeout_s

    def path(self, *names: str) -> str:
        """The path of a file or folder."""
        return "/".join((self._root, *names))

    @contextmanager
    def writable(self, path: str) -> Iterator[Path]:
        """A local file that becomes the one at a path."""
        if isinstance(self.files, LocalFileSystem):
            yield Path(path)
            return
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder) / "copy"
            yield copy
            self.files.put_file(str(copy), path)

    @contextmanager
    def replacing(self, path: str) -> Iterator[Path]:
        """A local file that takes the place of the one at a path at once, complete or not at all.

        What lies there stays readable until then, also through a loss of power.
        """
        if not isinstance(self.files, LocalFileSystem):  # an object is whole or absent
            with self.writable(path) as copy:
                yield copy
            return
        part = Path(f"{path}.{secrets.token_hex(4)}.part")  # two writers have one each
        yield part
        with part.open("rb") as written:
            os.fsync(written.fileno())
        part.replace(path)

    @contextmanager
    def local(self, path: str) -> Iterator[Path]:
        """A file as a local one, which may vanish once it is mapped."""
        if isinstance(self.files, LocalFileSystem):
            yield Path(path)
            return
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder) / "copy"
            self.files.get_file(path, str(copy))
            yield copy

    def within_deadline(self, call: Callable[[], T]) -> T:
        """Make a call in a thread that nobody waits for past the deadline; raises Unavailable."""
        future: Future[T] = Future()
        threading.Thread(target=_settle, args=(future, call), daemon=True).start()
        try:
            return future.result(self._timeout_s)
        except TimeoutError as exc:
            raise _unavailable(f"did not answer within {self._timeout_s:g} s") from exc
        except (OSError, SafetensorError) as exc:  # a full disk is one or the other
            raise _unavailable("can't be read or written") from exc


def _settle(future: Future[T], call: Callable[[], T]) -> None:
    try:
        future.set_result(call())
    except BaseException as exc:  # noqa: BLE001 - the waiting thread raises it
        future.set_exception(exc)


def _unavailable(what: str) -> Unavailable:
    return Unavailable(
        f"the artifact store {what}; try again, or check its URL", Reason.ARTIFACTS_UNAVAILABLE
    )
