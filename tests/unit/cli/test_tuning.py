"""What `milvine tune` and `milvine curve` read and show."""

from __future__ import annotations

import builtins
from dataclasses import fields

import click
import pytest
from google.protobuf.duration_pb2 import Duration

from milvine.cli import curves, tuning
from milvine.cli.documents import document
from milvine.domain.errors import FailedPrecondition
from milvine.v1 import model_pb2, tuning_pb2
from tests.unit.cli.test_app import ALL

FOUND = tuning_pb2.Tuning(
    catalog_id="films",
    trials=[
        tuning_pb2.Trial(
            number=1, settings={"epochs": 5}, value=0.25, duration=Duration(seconds=2)
        ),
        tuning_pb2.Trial(number=2, settings={"epochs": 9}, failure="diverged"),
        tuning_pb2.Trial(number=3, settings={"epochs": 7}, value=0.5),
    ],
    best_trial=tuning_pb2.Trial(number=3, settings={"epochs": 7}, value=0.5),
)


def option(name, text):
    """What an option of `milvine tune` makes of a text."""
    (param,) = [param for param in ALL["tune",].params if param.name == name]
    return param.type.convert(text, param, None)


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("ranges", "epochs=1:9", ("epochs", (1.0, 9.0))),
        ("ranges", "learning_rate=1e-4:0.1:log", ("learning_rate", (1e-4, 0.1, "log"))),
        ("choices", "epochs=1,2", ("epochs", [1.0, 2.0])),
    ],
)
def test_space_is_read(name, text, expected):
    """A range has two bounds and perhaps a scale; choices stand between commas."""
    assert option(name, text) == expected


@pytest.mark.parametrize(
    ("name", "text"),
    [
        *(("ranges", text) for text in ("epochs", "epochs=1", "epochs=a:b", "epochs=1:2:ln")),
        *(("ranges", text) for text in ("epochs=1:2:", "epochs=1:2:log:3")),
        *(("choices", text) for text in ("epochs", "epochs=", "epochs=1,x")),
    ],
)
def test_what_is_no_space_is_a_usage_error(name, text):
    """The form that is expected is said."""
    with pytest.raises(click.BadParameter, match=r"form NAME|scale"):
        option(name, text)


def test_trials_are_shown_best_first():
    """Failed ones come last, and the best one as a command."""
    shown = tuning._trials(FOUND, "ndcg@20")
    cells = [list(column.cells) for column in shown.columns]
    assert cells[0] == ["3", "1", "2"]
    assert cells[2] == ["0.5000", "0.2500", ""]
    assert cells[-1][-1] == "diverged"


def test_the_best_is_shown_as_a_command():
    """It has what was fixed and what was found."""
    asked = {"catalog": "films", "family": "als", "settings": {"seed": 1}}
    others = dict.fromkeys(f.name for f in fields(tuning.TuneArgs) if f.name not in asked)
    args = tuning.TuneArgs(**asked, **others)
    command = "milvine train films --family als --set seed=1 --set epochs=7"
    assert tuning._best(FOUND, args) == f"The best: {command}"


def test_settings_of_trials_are_an_object_in_json():
    """Maps of messages keep their values."""
    assert document(FOUND)["trials"][0]["settings"] == {"epochs": 5.0}


def _model():
    epochs = [
        model_pb2.EpochReport(epoch=n, epoch_count=3, loss=1 / n, metric=n / 10) for n in (1, 2, 3)
    ]
    config = model_pb2.ModelConfig(bpr={})
    return model_pb2.Model(model_id="m", config=config, epochs=epochs, holdout_epochs=epochs[:2])


def test_a_curve_is_a_png(tmp_path):
    """Losses and metrics of both fits are drawn into a picture."""
    model, path = _model(), tmp_path / "curve.png"
    curves._draw(model, {"all": model.epochs, "part": model.holdout_epochs}, path)
    assert path.read_bytes().startswith(b"\x89PNG")


def test_a_curve_without_matplotlib_says_what_to_install(monkeypatch, tmp_path):
    """The extra is optional."""
    real = builtins.__import__

    def without(name, *rest, **options):
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return real(name, *rest, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(FailedPrecondition, match=r"pip install 'milvine\[plots\]'"):
        curves._draw(_model(), {"all": _model().epochs}, tmp_path / "curve.png")


def test_a_curve_that_can_not_be_written_says_so(tmp_path):
    """A missing folder is a usage error with the path."""
    with pytest.raises(click.FileError, match="No such file"):
        curves._draw(_model(), {"all": _model().epochs}, tmp_path / "nowhere" / "curve.png")
