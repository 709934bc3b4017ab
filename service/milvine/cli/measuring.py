"""`milvine evaluate`: measuring a model again."""

from __future__ import annotations

from dataclasses import dataclass

import click

from milvine.cli.command import Remote, remote
from milvine.cli.documents import document
from milvine.cli.evaluation import HoldoutArgs, evaluation_tables, holdout_options, live_table
from milvine.cli.following import follow
from milvine.domain.errors import FailedPrecondition, Reason
from milvine.v1 import model_pb2, release_pb2

_SERVES = (release_pb2.Release.STATE_ACTIVE, release_pb2.Release.STATE_READY)


@dataclass(frozen=True, slots=True)
class EvaluateArgs(HoldoutArgs):
    """What `milvine evaluate` was asked."""

    model: str
    live: bool


@click.command()
@click.argument("model")
@holdout_options(may_be_none=False)
@click.option(
    "--live", is_flag=True, help="Ask the live index of the model's release for the same lists."
)
@remote(EvaluateArgs, needs_worker=True)
async def evaluate(call: Remote, args: EvaluateArgs) -> None:
    """Measure a MODEL again; the model keeps what came out in place of what it had.

    A model that has not learned from what is held out is measured as it is; of any other, the
    settings are fitted anew on the rest. `--holdout after` without --from takes what came after
    all that the model has learned from. Ctrl-C cancels.
    """
    model = await call.client.get_model(args.model)
    holdout = args.holdout_message()
    if args.holdout == "after" and args.start is None and model.HasField("latest_event_time"):
        holdout.start_time.FromNanoseconds(model.latest_event_time.ToNanoseconds() + 1_000)
    release = await _release(call, model) if args.live else ""
    handle = await call.client.evaluate(args.model, holdout=holdout, release=release)
    model = await follow(call, handle, "Evaluating")
    evaluation = model.evaluation
    views = evaluation_tables(evaluation, model.config.WhichOneof("family") or "model")
    if evaluation.HasField("live"):
        views.append(live_table(evaluation))
    measured = "its settings, fitted anew" if evaluation.fitted_anew else "the model as it is"
    call.output.show(document(model), *views, f"Measured {measured}.")


async def _release(call: Remote, model: model_pb2.Model) -> str:
    """The newest release of a model that can be asked."""
    async for release in call.client.releases(model.catalog_id):
        if release.model_id == model.model_id and release.state in _SERVES:
            return release.release_id
    raise FailedPrecondition(
        f"model {model.model_id!r} has no release to ask; publish it with "
        f"`milvine publish {model.model_id}`",
        Reason.WRONG_STATE,
        {"model_id": model.model_id},
    )
