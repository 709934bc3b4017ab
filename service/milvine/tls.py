"""TLS as servers and commands speak it: files are checked before gRPC gets them."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc

from milvine.domain.errors import InvalidArgument


def server_credentials(cert_file: Path, key_file: Path) -> grpc.ServerCredentials:
    """The credentials of a server that shows the certificate chain.

    Raises:
        InvalidArgument: The files can't be read, or are no chain and its unencrypted key.
    """
    with _told("MILVINE_TLS_CERT_FILE and MILVINE_TLS_KEY_FILE", "a chain and its key"):
        chain, key = cert_file.read_bytes(), key_file.read_bytes()
        # gRPC would say of a damaged pair that it can't listen. An empty password keeps OpenSSL
        # from asking for one.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(cert_file, key_file, password="")
    return grpc.ssl_server_credentials([(key, chain)])


def channel_credentials(ca_file: Path | None) -> grpc.ChannelCredentials:
    """The credentials of a client that trusts the authorities in the file, or the well-known ones.

    Raises:
        InvalidArgument: The file can't be read, or has no certificates.
    """
    if ca_file is None:
        return grpc.ssl_channel_credentials()
    with _told("MILVINE_SERVER_CA_FILE or --ca-file", "the certificates of authorities"):
        authorities = ca_file.read_bytes()
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(ca_file)
    return grpc.ssl_channel_credentials(authorities)


@contextmanager
def _told(option: str, content: str) -> Iterator[None]:
    try:
        yield
    except ssl.SSLError as exc:
        raise InvalidArgument.at(option, f"must be {content} in PEM, and is not") from exc
    except OSError as exc:
        raise InvalidArgument.at(option, f"{exc.filename!r} can't be read: {exc.strerror}") from exc
