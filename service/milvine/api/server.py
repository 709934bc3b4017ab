"""The gRPC server with all its services."""

from __future__ import annotations

from collections.abc import Mapping

import grpc
from google.longrunning import operations_pb2, operations_pb2_grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc
from prometheus_client import CollectorRegistry

from milvine.api.calls import Calls
from milvine.api.catalogs import CatalogServicer
from milvine.api.interactions import InteractionServicer
from milvine.api.interceptors import Interceptor
from milvine.api.items import ItemServicer
from milvine.api.models import ModelServicer
from milvine.api.operations import OperationsServicer
from milvine.api.recent import RecentCatalogs
from milvine.api.releases import ReleaseServicer
from milvine.api.retrieval import RetrievalServicer
from milvine.api.services import Services
from milvine.api.users import UserServicer
from milvine.v1 import (
    catalog_service_pb2,
    catalog_service_pb2_grpc,
    interaction_service_pb2,
    interaction_service_pb2_grpc,
    item_service_pb2,
    item_service_pb2_grpc,
    model_service_pb2,
    model_service_pb2_grpc,
    release_service_pb2,
    release_service_pb2_grpc,
    retrieval_service_pb2,
    retrieval_service_pb2_grpc,
    user_service_pb2,
    user_service_pb2_grpc,
)

SERVICE_NAMES = tuple(
    service.full_name
    for module in (
        catalog_service_pb2,
        item_service_pb2,
        user_service_pb2,
        interaction_service_pb2,
        model_service_pb2,
        release_service_pb2,
        retrieval_service_pb2,
        operations_pb2,
    )
    for service in module.DESCRIPTOR.services_by_name.values()
)
"""The services, by the names under which health speaks of them."""


_MAX_MESSAGE_BYTES = 64 * 2**20
_CHANNEL_ARGUMENTS = (
    ("grpc.max_receive_message_length", _MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", _MAX_MESSAGE_BYTES),
    # A connection that is silent for a minute is asked whether it lives, and may ask more often.
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
)


def build_server(
    services: Services,
    *,
    health_servicer: health.aio.HealthServicer | None = None,
    registry: CollectorRegistry | None = None,
    shares_port: bool = False,
) -> grpc.aio.Server:
    """A server with every service, health and reflection; the caller binds its port and starts it.

    Args:
        services: what the servicers call.
        health_servicer: tells probes how the server is; without one they hear SERVING.
        registry: where the metrics of calls are kept; without one they are not read.
        shares_port: whether other processes of this user may listen at its port, each for a part
            of the connections. Else a second server is told that the port is taken.
    """
    calls = Calls(registry or CollectorRegistry(), timeout_s=services.call_timeout_s)
    options = (*_CHANNEL_ARGUMENTS, ("grpc.so_reuseport", int(shares_port)))
    server = grpc.aio.server(interceptors=[Interceptor(calls)], options=options)
    methods = _ByName(server)
    _add_servicers(methods, services)
    health_pb2_grpc.add_HealthServicer_to_server(
        health_servicer or health.aio.HealthServicer(), methods
    )
    names = (*SERVICE_NAMES, health_pb2.DESCRIPTOR.services_by_name["Health"].full_name)
    reflection_pb2_grpc.add_ServerReflectionServicer_to_server(
        reflection.aio.ReflectionServicer((*names, reflection.SERVICE_NAME)), methods
    )
    return server


class _ByName:
    """Takes methods into a server by their names alone.

    For each method that is registered beside, grpc.aio keeps a task that waits for its calls, and
    goes through all these tasks twice at every call: a quarter of what a bare call costs.
    """

    def __init__(self, server: grpc.aio.Server) -> None:
        self.add_generic_rpc_handlers = server.add_generic_rpc_handlers

    def add_registered_method_handlers(
        self, service_name: str, method_handlers: Mapping[str, grpc.RpcMethodHandler]
    ) -> None:
        """Nothing: the handlers are there by name."""


def _add_servicers(server: _ByName, services: Services) -> None:
    catalogs = RecentCatalogs(services)
    catalog_service_pb2_grpc.add_CatalogServiceServicer_to_server(
        CatalogServicer(services, catalogs), server
    )
    item_service_pb2_grpc.add_ItemServiceServicer_to_server(ItemServicer(services), server)
    user_service_pb2_grpc.add_UserServiceServicer_to_server(UserServicer(services), server)
    interaction_service_pb2_grpc.add_InteractionServiceServicer_to_server(
        InteractionServicer(services, catalogs), server
    )
    model_service_pb2_grpc.add_ModelServiceServicer_to_server(ModelServicer(services), server)
    release_service_pb2_grpc.add_ReleaseServiceServicer_to_server(ReleaseServicer(services), server)
    retrieval_service_pb2_grpc.add_RetrievalServiceServicer_to_server(
        RetrievalServicer(services, catalogs), server
    )
    operations_pb2_grpc.add_OperationsServicer_to_server(OperationsServicer(services), server)
