"""An embedded Milvus: one process owns the database file, others attach to its child's socket.

Beside `milvus.db` lie `.milvus.db.owner`, locked by the owner while it lives, `.milvus.db.uri`
with the address, and milvus-lite's own `.milvus.db.lock`. Its child waits for that lock, so it
stops when the owner is gone, however it went.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib.util
import os
import re
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Self

from milvine.domain.errors import Aborted, NotSupported, Reason
from milvine.vectors.errors import unavailable

_START_S = 30.0
_STOP_S = 5.0
_POLL_S = 0.02
_FOLDER_BYTES = 90
"""A path of a unix socket has 104 bytes on some systems."""
_NAME = re.compile(r"[a-zA-Z0-9.\-_]{1,36}")
"""What milvus-lite takes as the name of a file."""


class LiteProcess:
    """A Milvus Lite that serves one database file, as its owner or attached to it."""

    def __init__(self, uri: str, child: _Child | None = None) -> None:
        self.uri = uri
        """The address for `Vectors.connect`."""
        self._child = child

    @property
    def owner(self) -> bool:
        """Whether the database stops with this object."""
        return self._child is not None

    @classmethod
    def open(cls, path: Path) -> Self:
        """Serve the file as its owner; raises Aborted where it is served already."""
        child = _Child(path.absolute())
        return cls(child.uri, child)

    @classmethod
    def attach_or_open(cls, path: Path) -> Self:
        """Attach to the process that serves the file, or become its owner."""
        end = time.monotonic() + _START_S
        while time.monotonic() < end:
            try:
                return cls.open(path)
            except Aborted:
                uri = _read(_beside(path.absolute(), "uri"))
                if uri and _answers(uri):
                    return cls(uri)
            time.sleep(_POLL_S)
        raise unavailable()

    def close(self) -> None:
        """Stop the child where this is its owner; what it acknowledged is on the disk."""
        if self._child is not None:
            self._child.close()


class _Child:
    """The server process of the owner; it is started again when it dies."""

    def __init__(self, path: Path) -> None:
        binary = _binary()
        if not _NAME.fullmatch(path.name):
            raise ValueError(f"{path.name!r} must be 1 to 36 letters, digits or any of . - _")
        path.parent.mkdir(parents=True, exist_ok=True)
        self._uri_file = _beside(path, "uri")
        self._owner_lock = _lock(_beside(path, "owner"), fcntl.flock)
        try:
            self._lite_lock = _lite_lock(path, _read(self._uri_file))
        except BaseException:
            self._owner_lock.close()
            raise
        self._folder = _socket_folder()
        self.uri = f"unix:{self._folder / 'lite.sock'}"
        self._binary = binary
        self._arguments = [str(path), self.uri, "ERROR", str(_beside(path, "lock"))]
        self._log = _beside(path, "log")
        self._closing = threading.Event()
        # Written first: if this process dies now, the next owner finds the child by it.
        _write(self._uri_file, self.uri)
        self._process = self._start()
        self._guardian = threading.Thread(target=self._guard, name="milvus-lite", daemon=True)
        self._guardian.start()
        try:
            self._wait()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Stop the server and give the file free."""
        self._closing.set()
        self._stop()
        self._guardian.join()
        self._stop()  # what the guardian may have started meanwhile
        self._uri_file.unlink(missing_ok=True)
        shutil.rmtree(self._folder, ignore_errors=True)
        self._lite_lock.close()
        self._owner_lock.close()

    def _start(self) -> subprocess.Popen[bytes]:
        libraries = str(self._binary.parent)
        with self._log.open("wb") as log:
            return subprocess.Popen(  # noqa: S603 - the program of milvus-lite
                [self._binary, *self._arguments],
                cwd=self._log.parent,
                env=os.environ | {"LD_LIBRARY_PATH": libraries, "DYLD_LIBRARY_PATH": libraries},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def _wait(self) -> None:
        end = time.monotonic() + _START_S
        while not _answers(self.uri):
            if time.monotonic() > end:
                raise unavailable()
            time.sleep(_POLL_S)

    def _guard(self) -> None:
        """Start the server again when it dies, at the same address, slower each time."""
        pause = _POLL_S
        while not self._closing.is_set():
            self._process.wait()
            pause = min(2 * pause, _STOP_S)
            if self._closing.wait(pause):
                return
            self._process = self._start()

    def _stop(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(_STOP_S)


def _binary() -> Path:
    # Not imported: it needs setuptools, and prints a warning.
    package = importlib.util.find_spec("milvus_lite")
    if package is None or package.origin is None:
        raise NotSupported("there is no embedded Milvus for this platform; name a Milvus server")
    return Path(package.origin).parent / "lib" / "milvus"


def _beside(path: Path, kind: str) -> Path:
    return path.with_name(f".{path.name}.{kind}")


def _lock(path: Path, lock: Callable[[IO[bytes], int], None]) -> IO[bytes]:
    """Lock a file until the returned one is closed; raises Aborted where it is locked."""
    file = path.open("ab")
    try:
        lock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.close()
        raise Aborted(f"another process serves {path.name}", Reason.VECTORS_UNAVAILABLE) from error
    return file


def _lite_lock(path: Path, last_uri: str) -> IO[bytes]:
    """Take milvus-lite's lock, once the child of an owner that died has let go of the file."""
    end = time.monotonic() + _STOP_S
    while True:
        try:
            lock = _lock(_beside(path, "lock"), fcntl.lockf)
        except Aborted:
            if time.monotonic() > end:
                raise
        else:
            if not _answers(last_uri):
                _tidy(last_uri)
                return lock
            lock.close()  # so that the child gets it, and stops
        time.sleep(_POLL_S)


def _answers(uri: str) -> bool:
    """Whether something listens at a unix socket; False for no address."""
    with socket.socket(socket.AF_UNIX) as client:
        try:
            client.connect(uri.removeprefix("unix:"))
        except OSError:
            return False
    return True


def _tidy(last_uri: str) -> None:
    """Remove the socket that an owner left behind when it died."""
    if last_uri:
        socket_path = Path(last_uri.removeprefix("unix:"))
        socket_path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            socket_path.parent.rmdir()


def _socket_folder() -> Path:
    """A new folder that only this user can enter, with a short path."""
    folder = Path(tempfile.mkdtemp(prefix="milvine-"))
    if len(os.fsencode(folder)) <= _FOLDER_BYTES:
        return folder
    folder.rmdir()
    return Path(tempfile.mkdtemp(prefix="milvine-", dir="/tmp"))


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except FileNotFoundError:
        return ""


def _write(path: Path, text: str) -> None:
    """Write a file that is never seen half written."""
    draft = path.with_name(f"{path.name}.new")
    draft.write_text(text)
    draft.replace(path)
