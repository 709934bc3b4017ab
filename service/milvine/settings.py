"""The settings of every milvine process, from the environment (`MILVINE_…`) and a `.env` file."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


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
    metrics_port: int = Field(default=0, ge=0, le=65535)
    """The port to serve Prometheus metrics on; 0 serves none."""
    tls_cert_file: Path | None = None
    """The certificate chain in PEM; with `tls_key_file`, gRPC is served over TLS."""
    tls_key_file: Path | None = None
    """The private key in PEM."""

    call_timeout_s: float = Field(default=30.0, gt=0)
    """The seconds a call may take that sets no deadline of its own."""
    records_timeout_s: float = Field(default=10.0, gt=0)
    """The seconds a statement may take."""
    vectors_timeout_s: float = Field(default=10.0, gt=0)
    """The seconds to wait for a connection to the Milvus."""
    refresh_s: float = Field(default=1.0, gt=0)
    """The seconds after which another process's activation or declaration is seen."""
    lease_s: float = Field(default=15.0, gt=1)
    """The seconds after which the work of a dead worker is taken up again."""
    drain_s: float = Field(default=10.0, ge=0)
    """The seconds that calls in flight may take when the server stops."""
    device: str = "auto"
    """Where to train: `cpu`, `cuda`, or `auto` for CUDA where there is one."""

    log_level: str = "info"
    """The least severe level to log: debug, info, warning, error."""
    log_format: LogFormat = LogFormat.AUTO
    """`console` for people, `json` for machines, `auto` by whether stderr is a terminal."""

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
