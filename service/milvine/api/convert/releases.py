"""Releases and publications."""

from __future__ import annotations

from milvine.api.convert.catalogs import field_messages
from milvine.api.convert.values import timestamp
from milvine.domain.catalog import Catalog
from milvine.domain.entity import Side
from milvine.domain.errors import InvalidArgument
from milvine.domain.model import Model
from milvine.domain.release import Gate, PublishRequest, Release, ReleaseState, TextIndex
from milvine.v1 import release_pb2, release_service_pb2

MAX_KEPT = 100
_DEFAULTS = PublishRequest("", "", "")
_STATES = {state: release_pb2.Release.State.Value(f"STATE_{state}") for state in ReleaseState}


def publication(
    request: release_service_pb2.PublishModelRequest, model: Model, *, release_id: str
) -> PublishRequest:
    """The publication that a request asks for, checked."""
    recall = _DEFAULTS.min_index_recall
    if request.HasField("min_index_recall"):
        recall = request.min_index_recall
    kept = request.keep_releases if request.HasField("keep_releases") else _DEFAULTS.keep_releases
    if not 0 <= recall <= 1:
        raise InvalidArgument.at("min_index_recall", "must be 0 to 1")
    if not 0 <= kept <= MAX_KEPT:
        raise InvalidArgument.at("keep_releases", f"must be 0 to {MAX_KEPT}")
    return PublishRequest(model.catalog_id, model.id, release_id, request.hold, recall, kept)


def release_message(release: Release, catalog: Catalog) -> release_pb2.Release:
    """The message of a release; the catalog says whether it is the active one."""
    return release_pb2.Release(
        release_id=release.id,
        catalog_id=release.catalog_id,
        model_id=release.model_id,
        state=_state(release, catalog),
        item_count=release.item_count,
        user_count=release.user_count,
        item_fields=field_messages(release.item_fields),
        user_fields=field_messages(release.user_fields),
        collections=release_pb2.Collections(
            items=release.collection(Side.ITEM),
            item_neighbours=release.neighbour_collection(Side.ITEM),
            users=release.collection(Side.USER),
            user_neighbours=release.neighbour_collection(Side.USER),
            item_texts=release.text_collection if release.text else "",
        ),
        gate=_gate_message(release.gate),
        failure=release.failure,
        create_time=timestamp(release.create_time),
        activate_time=timestamp(release.activate_time),
        text_index=_text_message(release.text),
    )


def _text_message(text: TextIndex | None) -> release_pb2.TextIndex | None:
    if text is None:
        return None
    return release_pb2.TextIndex(
        text_fields=text.fields, text_encoder=text.encoder, dimension=text.dimension
    )


def _state(release: Release, catalog: Catalog) -> release_pb2.Release.State.ValueType:
    if release.state is ReleaseState.READY and catalog.active_release_id == release.id:
        return release_pb2.Release.STATE_ACTIVE
    return _STATES[release.state]


def _gate_message(gate: Gate | None) -> release_pb2.Gate | None:
    if gate is None:
        return None
    return release_pb2.Gate(
        index_recall=gate.index_recall,
        sample_size=gate.sample_size,
        min_index_recall=gate.min_index_recall,
    )
