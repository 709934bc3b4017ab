"""Tastes that callers say by examples."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

from milvine.api.convert.values import check_count, raise_all
from milvine.domain.entity import id_fault
from milvine.domain.errors import InvalidArgument, Violation
from milvine.domain.query import ExamplesSubject
from milvine.v1 import retrieval_service_pb2 as pb

MAX_EXAMPLES = 1_000
MAX_WEIGHT = 1e6


def examples(message: pb.Examples, path: str) -> ExamplesSubject:
    """The taste; of an item that is named twice, the weights add up."""
    if not message.positives and not message.negatives:
        raise InvalidArgument.at(f"{path}.positives", "must have an example, or negatives must")
    positives = _weights(message.positives, f"{path}.positives")
    negatives = _weights(message.negatives, f"{path}.negatives")
    raise_all(
        Violation(f"{path}.negatives[{i}].item_id", "is among the positives, too; leave out one")
        for i, example in enumerate(message.negatives)
        if example.item_id in positives
    )
    return ExamplesSubject(positives, negatives)


def _weights(messages: Sequence[pb.Example], path: str) -> dict[str, float]:
    check_count(len(messages), path, least=0, most=MAX_EXAMPLES)
    raise_all(_faults(messages, path))
    weights: defaultdict[str, float] = defaultdict(float)
    for message in messages:
        weights[message.item_id] += message.weight if message.HasField("weight") else 1.0
    return dict(weights)


def _faults(messages: Sequence[pb.Example], path: str) -> Iterator[Violation]:
    for i, message in enumerate(messages):
        if fault := id_fault(message.item_id):
            yield Violation(f"{path}[{i}].item_id", fault)
        # What is no number compares as false.
        if message.HasField("weight") and not 0 < message.weight <= MAX_WEIGHT:
            yield Violation(
                f"{path}[{i}].weight",
                f"must be a number over 0 and at most {MAX_WEIGHT:,.0f}, is {message.weight}",
            )
