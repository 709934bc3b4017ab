"""What a worker does to search for settings."""

from __future__ import annotations

import contextlib
from functools import partial

from milvine.domain.errors import AlreadyExists
from milvine.domain.operation import Operation, OperationKind
from milvine.domain.progress import TuneProgress
from milvine.domain.tuning import best_of
from milvine.jobs.payloads import TrainRequest, TuneRequest, TuneResult, from_json, to_json
from milvine.jobs.runner import Job
from milvine.records import Records
from milvine.text import TextEncoder
from milvine.training.tuning import TuneRun, best_config, tune


def search(records: Records, job: Job, *, device: str, reader: TextEncoder) -> TuneResult:
    """Try settings, and queue the training of the best where that is asked for.

    The row's progress has the trials of an attempt whose worker died; the search goes on from them.

    Args:
        records: Where the interactions are.
        job: The operation.
        device: The torch device of the fits.
        reader: Reads texts.
    """
    request = from_json(TuneRequest, job.operation.request)
    done = from_json(TuneProgress, job.operation.progress).trials
    catalog = records.catalogs.get(request.catalog_id)
    read = request.plan.holdout.read(request.event_types)
    events = records.interactions.scan(catalog.id, event_types=read or None)
    read_fields = partial(records.entities.table, catalog.id)
    run = TuneRun(device, job.report, job.must_stop.is_set, read_fields, reader)
    trials = tune(events, catalog, request.plan, run, done)
    best = best_of(trials)
    if best is None:
        raise ValueError("a search ends with a trial that has a value")
    result = TuneResult(trials, best_config(request.plan, best))
    _follow(records, request, result)
    return result


def _follow(records: Records, request: TuneRequest, result: TuneResult) -> None:
    following = request.following
    if following is None:
        return
    training = TrainRequest(
        request.catalog_id,
        following.model_id,
        result.best_config,
        request.plan.holdout,
        request.event_types,
        following.display_name,
    )
    operation = Operation(
        following.operation_id, request.catalog_id, OperationKind.TRAIN, to_json(training)
    )
    # A worker that died after this queued it before.
    with contextlib.suppress(AlreadyExists):
        records.operations.create(operation, exclusive=False)
