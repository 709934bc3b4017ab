# The image of every milvine process: `serve` (the default), `worker`, and the rest of the commands.
#
#   docker build -t milvine .
#   docker build -t milvine --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu130 .
#
# PyPI's own torch for Linux brings gigabytes of CUDA, so the build for CPUs is taken unless
# TORCH_INDEX names another: PyTorch's index for a CUDA version, PyPI, or a mirror of your own.
ARG PYTHON=python:3.11.15-slim-bookworm

FROM ${PYTHON} AS build
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PYTHONDONTWRITEBYTECODE=1
RUN python -m venv /opt/milvine
ENV PATH=/opt/milvine/bin:$PATH
WORKDIR /src

# The dependencies are a layer of their own: a change of the code does not install them again.
COPY constraints.txt pyproject.toml ./
RUN pip install --no-deps --index-url "$TORCH_INDEX" "$(grep '^torch==' constraints.txt)"
RUN python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["dependencies"], sep="\n")' \
        > requirements.txt \
    && pip install -c constraints.txt -r requirements.txt

COPY README.md ./
COPY service service
RUN pip install --no-deps . && python -m compileall -q /opt/milvine/lib

FROM ${PYTHON}
LABEL org.opencontainers.image.title="milvine" \
      org.opencontainers.image.description="Trains embeddings, keeps them in Milvus, serves ranked results over gRPC"
ENV PATH=/opt/milvine/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    MILVINE_DATA_DIR=/var/lib/milvine \
    MILVINE_HOST=0.0.0.0 \
    MILVINE_LOG_FORMAT=json

# The folder exists with its owner before a volume is mounted, which takes both over.
RUN useradd --system --uid 10001 --user-group --home-dir /var/lib/milvine --create-home milvine
COPY --from=build /opt/milvine /opt/milvine
COPY --chmod=755 <<'EOT' /usr/local/bin/milvine-health
#!/opt/milvine/bin/python
"""Succeeds while the server of this container says SERVING."""
import os
import socket
import ssl
import sys

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

HOST, PORT = "127.0.0.1", int(os.environ.get("MILVINE_PORT", "50051"))


def shown_name(certificate):
    """A name in the certificate of this server, which need not be localhost."""
    context = ssl.create_default_context(cafile=certificate)
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.set_alpn_protocols(["h2"])
    with socket.create_connection((HOST, PORT), 2) as plain, context.wrap_socket(plain) as shown:
        names = [name for kind, name in shown.getpeercert()["subjectAltName"] if kind == "DNS"]
    return names[0].replace("*", "any")


certificate = os.environ.get("MILVINE_TLS_CERT_FILE")
if certificate:
    with open(certificate, "rb") as file:
        credentials = grpc.ssl_channel_credentials(file.read())
    options = [("grpc.ssl_target_name_override", shown_name(certificate))]
    channel = grpc.secure_channel(f"{HOST}:{PORT}", credentials, options)
else:
    channel = grpc.insecure_channel(f"{HOST}:{PORT}")
answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=2)
sys.exit(answer.status != health_pb2.HealthCheckResponse.SERVING)
EOT

USER 10001:10001
WORKDIR /var/lib/milvine
VOLUME /var/lib/milvine
EXPOSE 50051 9464
HEALTHCHECK --interval=5s --timeout=5s --start-period=60s --retries=3 \
    CMD ["milvine-health"]
ENTRYPOINT ["milvine"]
CMD ["serve"]
