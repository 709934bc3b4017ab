"""Artifacts: trained models in a folder or an object store, complete or absent.

An artifact is a folder of its own: `weights.safetensors` with the arrays and the item ids, and
`model.json`, written last and removed first, which holds a document and the digest of both. What
has no `model.json` does not exist.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import fsspec
import numpy as np
import pyarrow as pa
from fsspec.implementations.local import LocalFileSystem
from numpy.typing import NDArray
from safetensors.numpy import save_file

from milvine.artifacts import safetensors_map
from milvine.domain.errors import DataLoss, InvalidArgument, Reason, Unavailable
from milvine.domain.operation import Json
from milvine.threads import Threads

T = TypeVar("T")

FORMAT = 1
_LOADERS = 2
_WEIGHTS = "weights.safetensors"
_MANIFEST = "model.json"
_ID_OFFSETS, _ID_BYTES = "item_ids.offsets", "item_ids.bytes"


@dataclass(frozen=True, slots=True)
class Artifact:
    """A trained model as it is stored."""

    item_ids: pa.StringArray
    """A row each."""
    tensors: Mapping[str, NDArray[np.generic]]
    """By name; read-only, mapped from the file."""
    document: Json


class Artifacts:
    """The artifacts under one URL."""

    def __init__(self, url: str, *, timeout_s: float = 300.0) -> None:
        """Take a folder's path or an fsspec URL; each call ends within the timeout.

        Raises:
            InvalidArgument: When nothing that is installed knows such a URL.
        """
        try:
            self._files, self._root = fsspec.core.url_to_fs(url)
        except (ValueError, ImportError) as exc:
            scheme = url.partition(":")[0]
            raise InvalidArgument.at(
                "MILVINE_ARTIFACTS_URL",
                f"no package for {scheme}: URLs of fsspec is installed here",
            ) from exc
        self._timeout_s = timeout_s
        self.loaders = Threads("load", _LOADERS)
        """Where coroutines load: an object store may take minutes, and others need threads."""

    def close(self) -> None:
        """Wait for loads that coroutines began."""
        self.loaders.close()

    def save(
        self,
        model_id: str,
        tensors: Mapping[str, NDArray[np.generic]],
        item_ids: pa.Array | Sequence[str],
        document: Json,
    ) -> None:
        """Store an artifact, in place of what the id had; raises Unavailable."""
        arrays = {name: np.ascontiguousarray(array) for name, array in tensors.items()}
        arrays |= _packed(
            item_ids if isinstance(item_ids, pa.Array) else pa.array(item_ids, pa.string())
        )
        self._within_deadline(lambda: self._save(model_id, arrays, document))

    def load(self, model_id: str) -> Artifact:
        """The artifact of a model.

        Raises:
            DataLoss: When it is missing, damaged, or of a newer format.
            Unavailable: When the store does not answer.
        """
        return self._within_deadline(lambda: self._load(model_id))

    def delete(self, model_id: str) -> None:
        """Remove an artifact; one that does not exist is no error."""
        self._within_deadline(lambda: self._delete(model_id))

    def exists(self, model_id: str) -> bool:
        """Whether the artifact of a model is complete."""
        return self._within_deadline(
            lambda: bool(self._files.exists(self._path(model_id, _MANIFEST)))
        )

    def _save(
        self, model_id: str, arrays: Mapping[str, NDArray[np.generic]], document: Json
    ) -> None:
        self._delete(model_id)
        self._files.makedirs(self._path(model_id), exist_ok=True)
        with self._writable(self._path(model_id, _WEIGHTS)) as weights:
            save_file(dict(arrays), weights)
            digest = _digest(weights)
        manifest = {"format": FORMAT, "weights_sha256": digest, "document": document}
        manifest["document_sha256"] = _text_digest(document)
        part = self._path(model_id, _MANIFEST + ".part")
        self._files.pipe_file(part, json.dumps(manifest, indent=1).encode())
        self._files.mv(part, self._path(model_id, _MANIFEST))

    def _load(self, model_id: str) -> Artifact:
        manifest = self._manifest(model_id)
        with self._local(model_id) as weights:
            if _digest(weights) != manifest["weights_sha256"]:
                raise _damaged(model_id, "its weights do not have the digest that was stored")
            arrays = safetensors_map.read(weights)
        item_ids = _unpacked(arrays.pop(_ID_OFFSETS), arrays.pop(_ID_BYTES))
        return Artifact(item_ids, arrays, manifest["document"])

    def _manifest(self, model_id: str) -> Json:
        try:
            manifest: Json = json.loads(self._files.cat_file(self._path(model_id, _MANIFEST)))
            sound = manifest["document_sha256"] == _text_digest(manifest["document"])
            version = manifest["format"]
        except FileNotFoundError as exc:
            raise _damaged(model_id, "it does not exist") from exc
        except (ValueError, KeyError, TypeError) as exc:
            raise _damaged(model_id, "its document is not readable") from exc
        if version != FORMAT:
            raise _damaged(model_id, f"its format {version} is not format {FORMAT}")
        if not sound:
            raise _damaged(model_id, "its document does not have the digest that was stored")
        return manifest

    @contextmanager
    def _writable(self, path: str) -> Iterator[Path]:
        """A local file that becomes the one at a path."""
        if isinstance(self._files, LocalFileSystem):
            yield Path(path)
            return
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder) / _WEIGHTS
            yield copy
            self._files.put_file(str(copy), path)

    @contextmanager
    def _local(self, model_id: str) -> Iterator[Path]:
        """The weights as a local file, which may vanish once it is mapped."""
        path = self._path(model_id, _WEIGHTS)
        try:
            if isinstance(self._files, LocalFileSystem):
                yield Path(path)
                return
            with tempfile.TemporaryDirectory() as folder:
                copy = Path(folder) / _WEIGHTS
                self._files.get_file(path, str(copy))
                yield copy
        except FileNotFoundError as exc:
            raise _damaged(model_id, "its weights are missing") from exc

    def _delete(self, model_id: str) -> None:
        for name in (_MANIFEST, _WEIGHTS):
            if self._files.exists(path := self._path(model_id, name)):
                self._files.rm_file(path)
        if self._files.exists(folder := self._path(model_id)):
            self._files.rm(folder, recursive=True)

    def _path(self, model_id: str, *names: str) -> str:
        return "/".join((self._root, model_id, *names))

    def _within_deadline(self, call: Callable[[], T]) -> T:
        """Make a call in a thread that nobody waits for past the deadline."""
        future: Future[T] = Future()
        threading.Thread(target=_settle, args=(future, call), daemon=True).start()
        try:
            return future.result(self._timeout_s)
        except TimeoutError as exc:
            raise _unavailable(f"did not answer within {self._timeout_s:g} s") from exc
        except OSError as exc:
            raise _unavailable("can't be read or written") from exc


def _settle(future: Future[T], call: Callable[[], T]) -> None:
    try:
        future.set_result(call())
    except BaseException as exc:  # noqa: BLE001 - the waiting thread raises it
        future.set_exception(exc)


def _packed(ids: pa.StringArray) -> dict[str, NDArray[np.generic]]:
    """Ids as two arrays: their bytes end to end, and where each begins."""
    texts = ids.to_numpy(zero_copy_only=False)
    encoded = [text.encode() for text in texts]
    offsets = np.zeros(len(encoded) + 1, np.int64)
    np.cumsum([len(text) for text in encoded], out=offsets[1:])
    return {_ID_OFFSETS: offsets, _ID_BYTES: np.frombuffer(b"".join(encoded), np.uint8)}


def _unpacked(offsets: NDArray[np.generic], data: NDArray[np.generic]) -> pa.StringArray:
    starts = pa.py_buffer(offsets.astype(np.int32))
    return pa.StringArray.from_buffers(len(offsets) - 1, starts, pa.py_buffer(data.tobytes()))


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _text_digest(document: Json) -> str:
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


def _damaged(model_id: str, what: str) -> DataLoss:
    return DataLoss(f"the artifact of model {model_id!r} can't be used: {what}; train again")


def _unavailable(what: str) -> Unavailable:
    return Unavailable(
        f"the artifact store {what}; try again, or check its URL", Reason.ARTIFACTS_UNAVAILABLE
    )
