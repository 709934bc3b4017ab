"""The settings of every milvine process, from the environment (`MILVINE_…`) and a `.env` file."""

from __future__ import annotations

import os
import re
from enum import StrEnum
from pathlib import Path
from typing import Self

from pydantic import Field, SecretStr, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from milvine.domain.errors import InvalidArgument
from milvine.text import check_name

MOST_PROCESSES = 256


class LogLevel(StrEnum):
    """How severe a log line is at least."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"
    CRITICAL = "critical"

    @classmethod
    def _missing_(cls, value: object) -> Self | None:
        """Take the name in any case."""
        return next((level for level in cls if level == str(value).lower()), None)


class LogFormat(StrEnum):
    """How log lines look."""

    AUTO = "auto"
    CONSOLE = "console"
    JSON = "json"


class Settings(BaseSettings):
    """What can be set, with defaults that run everything embedded in one folder."""

    model_config = SettingsConfigDict(env_prefix="MILVINE_", env_file=".env", extra="ignore")

    data_dir: Path = Path("milvine-data")
    """The folder of the embedded stores: SQLite, Milvus Lite and artifacts."""
    records_url: str = ""
    """The database of the records, `postgresql://…` or `sqlite:///…`; SQLite in `data_dir`."""
    vectors_uri: str = ""
    """The Milvus to use, `http://host:19530`; Milvus Lite in `data_dir` when empty."""
    vectors_token: SecretStr = SecretStr("")
    """The token of the Milvus, `user:password` or an API key."""
    vectors_database: str = ""
    """The database in the Milvus; its default one when empty."""
    artifacts_url: str = ""
    """Where models are kept: a folder or an fsspec URL such as `s3://bucket/path`."""

    host: str = "127.0.0.1"
    """The address to serve gRPC on."""
    port: int = Field(default=50051, ge=0, le=65535)
    """The port to serve gRPC on; 0 takes a free one."""
    processes: int = Field(default=1, ge=1, le=MOST_PROCESSES)
    """The server processes that share the port; each answers a part of the connections."""
    metrics_port: int = Field(default=0, ge=0, le=65535)
    """The port to serve Prometheus metrics on; 0 serves none."""
    tls_cert_file: Path | None = None
    """The certificate chain in PEM; with `tls_key_file`, gRPC is served over TLS."""
    tls_key_file: Path | None = Field(default=None, validate_default=True)
    """The private key of the certificate in PEM."""

    server: str = ""
    """The server that commands call, `host:port`; when empty, the one at `host` and `port`."""
    server_tls: bool = False
    """Whether commands speak TLS with the server."""
    server_ca_file: Path | None = None
    """The authorities that commands trust, in PEM, and then speak TLS; else the well-known ones."""

    call_timeout_s: float = Field(default=30.0, gt=0)
    """The seconds a call may take that sets no deadline of its own."""
    records_timeout_s: float = Field(default=10.0, gt=0)
    """The seconds a statement may take."""
    vectors_timeout_s: float = Field(default=10.0, gt=0)
    """The seconds to wait for a connection to the Milvus."""
    refresh_s: float = Field(default=1.0, gt=0)
    """The seconds after which another process's activation or declaration is seen."""
    staleness_s: float = Field(default=5.0, ge=0)
    """The seconds after which interactions count that another process wrote; 0: at once.

    On PostgreSQL; on SQLite they always count at once."""
    lease_s: float = Field(default=15.0, gt=1)
    """The seconds after which the work of a dead worker is taken up again."""
    drain_s: float = Field(default=10.0, ge=0)
    """The seconds that calls in flight may take when the server stops."""
    device: str = "auto"
    """Where to train: `cpu`, `cuda`, `cuda:N`, or `auto` for CUDA where there is one."""

    text_encoder: str = "hashing"
    """What reads texts: `hashing`, `hashing:N` for N dimensions, or `minilm` of the extra text."""

    log_level: LogLevel = LogLevel.INFO
    """The least severe level to log: debug, info, warning, error, critical."""
    log_format: LogFormat = LogFormat.AUTO
    """`console` for people, `json` for machines, `auto` by whether stderr is a terminal."""

    def make_data_dir(self) -> None:
        """Make the folder of the embedded stores; raises InvalidArgument where that can't be."""
        try:
            self.data_dir.mkdir(parents=True, exist_ok=True)
        except OSError as exc:
            raise InvalidArgument.at(
                "MILVINE_DATA_DIR", f"{str(self.data_dir)!r} can't be made: {exc.strerror}"
            ) from exc
        if not os.access(self.data_dir, os.W_OK | os.X_OK):
            raise InvalidArgument.at(
                "MILVINE_DATA_DIR", f"{str(self.data_dir)!r} may not be written by this user"
            )

    @field_validator("vectors_uri")
    @classmethod
    def _is_address(cls, uri: str) -> str:
        """Refuse what would be dialled for ever, such as `milvus:19530`."""
        if uri and not uri.startswith(("http://", "https://", "unix:")):
            raise ValueError(f"must be http://HOST:PORT or https://HOST:PORT, is {uri!r}")
        return uri

    @field_validator("tls_key_file")
    @classmethod
    def _goes_with_certificate(cls, key: Path | None, info: ValidationInfo) -> Path | None:
        """Refuse half a pair, which would be served without TLS."""
        if (key is None) != (info.data.get("tls_cert_file") is None):
            raise ValueError("goes with MILVINE_TLS_CERT_FILE: set both or neither")
        return key

    @field_validator("device")
    @classmethod
    def _is_device(cls, name: str) -> str:
        """Refuse a device before any training starts."""
        if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", name):
            raise ValueError(f"must be auto, cpu, cuda or cuda:N, is {name!r}")
        return name

    @field_validator("text_encoder")
    @classmethod
    def _is_encoder(cls, name: str) -> str:
        """Refuse an encoder before anything is built with it."""
        check_name(name)
        return name

    @property
    def records(self) -> str:
        """The URL of the records."""
        return self.records_url or f"sqlite:///{self.data_dir.absolute() / 'records.db'}"

    @property
    def artifacts(self) -> str:
        """The URL of the artifacts."""
        return self.artifacts_url or str(self.data_dir.absolute() / "artifacts")

    @property
    def lite_file(self) -> Path | None:
        """The file of the embedded Milvus; None where `vectors_uri` names one to use."""
        return None if self.vectors_uri else self.data_dir.absolute() / "vectors.db"


def joined(host: str, port: int) -> str:
    """The address as `host:port`, with brackets around the colons of IPv6."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def no_port(host: str, port: int) -> InvalidArgument:
    """The error of an address that can't be listened at."""
    return InvalidArgument.at(
        "MILVINE_HOST and MILVINE_PORT",
        f"can't listen at {joined(host, port)}; another process does, "
        "or it is no address of this machine",
    )
