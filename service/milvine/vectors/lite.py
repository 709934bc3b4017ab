"""An embedded Milvus: one process owns the database file, others attach to its child's socket.

Beside `milvus.db` lie `.milvus.db.owner`, which the owner locks while it lives, `.milvus.db.uri`
with the address, and milvus-lite's own `.milvus.db.lock`. Its child waits for that lock, so it
stops when the owner is gone, however it went. Then one of the attached processes takes over, at
the same address.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import os
import re
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
_WATCH_S = 0.2
_POLL_S = 0.02
_NAME = re.compile(r"[a-zA-Z0-9.\-_]{1,36}")
"""What milvus-lite takes as the name of a file."""
_PLAIN_PATH = re.compile(r"[a-zA-Z0-9.\-_/]{1,100}")
"""What is a path of a unix socket on every system, and in a URI."""


class LiteProcess:
    """A Milvus Lite that serves one database file, owned by this process or by another."""

    def __init__(self, path: Path, uri: str, child: _Child | None) -> None:
        self.uri = uri
        """The address for `Vectors.connect`; it stays the same when the owner changes."""
        self._path = path
        self._child = child
        self._changing = threading.Lock()
        self._closing = threading.Event()
        threading.Thread(target=self._watch, name="milvus-lite", daemon=True).start()

    @property
    def owner(self) -> bool:
        """Whether the database is served by this process."""
        return self._child is not None

    @classmethod
    def open(cls, path: Path) -> Self:
        """Serve the file as its owner; raises Aborted where another process does.

        Raises ValueError for a name that milvus-lite refuses, Unavailable where it does not start.
        """
        child = _Child(path.absolute())
        child.wait()
        return cls(path.absolute(), child.uri, child)

    @classmethod
    def attach_or_open(cls, path: Path) -> Self:
        """Attach to the process that serves the file, or become its owner."""
        end = time.monotonic() + _START_S
        while time.monotonic() < end:
            try:
                return cls.open(path)
            except Aborted:
                uri = _read(_beside(path.absolute(), "uri"))
                if _answers(uri):
                    return cls(path.absolute(), uri, None)
            time.sleep(_POLL_S)
        raise unavailable()

    def close(self) -> None:
        """Let go of the file; its owner stops the server. What it acknowledged is on the disk."""
        with self._changing:
            self._closing.set()
            if self._child is not None:
                self._child.close()

    def _watch(self) -> None:
        """Start the child again when it dies, and take over when the owner does."""
        while not self._closing.wait(_WATCH_S):
            with self._changing:
                if self._closing.is_set():
                    return
                if self._child is not None:
                    self._child.revive()
                    continue
                try:
                    self._child = _Child(self._path)
                except Aborted:
                    continue


class _Child:
    """The server, and the locks that make this process its owner."""

    def __init__(self, path: Path) -> None:
        if not _NAME.fullmatch(path.name):
            raise ValueError(f"{path.name!r} must be 1 to 36 letters, digits or any of . - _")
        self._path = path
        self._binary = _binary()
        self._socket = _socket(path)
        self.uri = f"unix:{self._socket}"
        path.parent.mkdir(parents=True, exist_ok=True)
        self._owner_lock = _lock(_beside(path, "owner"), fcntl.flock)
        try:
            self._lite_lock = _lite_lock(path, self.uri)
            _write(_beside(path, "uri"), self.uri)
            self._process = self._start()
        except BaseException:
            self._owner_lock.close()
            raise

    def wait(self) -> None:
        """Wait until it answers; raises Unavailable, and stops it, where it does not."""
        end = time.monotonic() + _START_S
        while not _answers(self.uri):
            if time.monotonic() > end:
                self.close()
                raise unavailable()
            time.sleep(_POLL_S)

    def revive(self) -> None:
        """Start it again where it has died."""
        if self._process.poll() is not None:
            self._process = self._start()

    def close(self) -> None:
        """Stop it and let go of the file."""
        self._process.terminate()
        try:
            self._process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(_STOP_S)
        self._socket.unlink(missing_ok=True)
        self._lite_lock.close()
        self._owner_lock.close()

    def _start(self) -> subprocess.Popen[bytes]:
        libraries = str(self._binary.parent)
        with _beside(self._path, "log").open("wb") as log:
            return subprocess.Popen(  # noqa: S603 - the program of milvus-lite
                [self._binary, self._path, self.uri, "ERROR", _beside(self._path, "lock")],
                cwd=self._path.parent,
                env=os.environ | {"LD_LIBRARY_PATH": libraries, "DYLD_LIBRARY_PATH": libraries},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )


def _binary() -> Path:
    # Found, not imported: importing it needs setuptools and prints a warning.
    package = importlib.util.find_spec("milvus_lite")
    if package is None or package.origin is None:
        raise NotSupported("there is no embedded Milvus for this platform; name a Milvus server")
    return Path(package.origin).parent / "lib" / "milvus"


def _beside(path: Path, kind: str) -> Path:
    return path.with_name(f".{path.name}.{kind}")


def _socket(path: Path) -> Path:
    """The socket of a file, always the same: beside it, or in a folder of this user's."""
    beside = _beside(path, "sock")
    if _PLAIN_PATH.fullmatch(str(beside)):
        return beside
    name = f"milvine-{os.getuid()}-{hashlib.sha256(os.fsencode(path)).hexdigest()[:16]}"
    folder = Path(tempfile.gettempdir(), name)
    if not _PLAIN_PATH.fullmatch(str(folder / "sock")):
        folder = Path("/tmp", name)  # noqa: S108 - checked below
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise PermissionError(f"{folder} belongs to another user")
    return folder / "sock"


def _lock(path: Path, lock: Callable[[IO[bytes], int], None]) -> IO[bytes]:
    """Lock a file until the returned one is closed; raises Aborted where it is locked."""
    file = path.open("ab")
    try:
        lock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.close()
        raise Aborted(
            "another process serves the embedded Milvus", Reason.VECTORS_UNAVAILABLE
        ) from error
    return file


def _lite_lock(path: Path, uri: str) -> IO[bytes]:
    """Take milvus-lite's lock, once the child of an owner that died has let go of the file."""
    end = time.monotonic() + _STOP_S
    while True:
        try:
            lock = _lock(_beside(path, "lock"), fcntl.lockf)
        except Aborted:
            if time.monotonic() > end:
                raise
        else:
            if not _answers(uri):
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
