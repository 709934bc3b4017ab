"""What holds for trainings in several processes."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from milvine.domain.errors import Aborted, Cancelled, FailedPrecondition, Reason
from milvine.models import Run, families
from milvine.models.base import Histories
from milvine.models.batches import Batch, Users
from milvine.models.loop import learn
from milvine.models.parallel import together
from milvine.models.steps import Schedule, Steps
from tests.unit.models.test_gradient_families import Kept
from tests.unit.models.worlds import LEARNT, checkerboard, dataset_of, low_rank

FAMILIES = sorted(name for name, family in families.items() if family.is_parallel)
SMALL = {"embedding_size": 8, "epochs": 6, "batch_size": 100}
SOON_S = 20.0


@pytest.fixture(autouse=True)
def nothing_left(monkeypatch, tmp_path):
    """Every training ends its processes, removes its folder and gives its threads back."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    threads = torch.get_num_threads()

    yield

    assert multiprocessing.active_children() == []
    assert list(tmp_path.glob("milvine-*")) == []
    assert torch.get_num_threads() == threads
    assert not torch.distributed.is_initialized()


def test_families_that_learn_by_gradients_are_parallel():
    """Several processes can train each of them, and none of the others."""
    assert set(families) - set(FAMILIES) == {"als", "ratings_mf"}


@pytest.mark.parametrize("family", FAMILIES)
def test_processes_take_the_steps_of_one(family):
    """Three give the vectors, losses and metrics of one, also of batches of fewer users."""
    dataset, kind = dataset_of(family, low_rank(41, 30, 0.5)), families[family]
    config = kind.config(SMALL | {"batch_size": 25, "patience": 100})
    one, three = (kind.fit(dataset, config, Run(process_count=n)) for n in (1, 3))
    np.testing.assert_allclose(three.item_vectors, one.item_vectors, rtol=1e-3, atol=1e-4)
    users = [kind.encoder(config, f.tensors).encode(dataset.histories) for f in (one, three)]
    np.testing.assert_allclose(users[1], users[0], rtol=1e-3, atol=1e-4)
    told = [[(e.loss, e.metric) for e in fitted.epochs] for fitted in (one, three)]
    np.testing.assert_allclose(told[1], told[0], rtol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_checkerboard(family):
    """On a checkerboard with the diagonal withheld, two processes find what is withheld."""
    dataset, kind = dataset_of(family, checkerboard()), families[family]
    config = kind.config(LEARNT.get(family, {}))
    fitted = kind.fit(dataset, config, Run(process_count=2))
    scores = kind.encoder(config, fitted.tensors).encode(dataset.histories) @ fitted.item_vectors.T
    scores[dataset.histories.users, dataset.histories.items] = -np.inf
    assert np.array_equal(scores.argmax(axis=1), np.arange(50))


@pytest.mark.parametrize(("before", "after"), [(2, 1), (1, 2), (2, 2)])
def test_resumed_by_another_number_of_processes(before, after):
    """A fit that goes on from a checkpoint gives what one that never stopped gives."""
    dataset, kept, kind = dataset_of("bpr", low_rank(40, 30, 0.5)), Kept(), families["bpr"]
    config = kind.config(SMALL | {"patience": 100})
    straight = kind.fit(dataset, config, Run())
    stopped = Run(cancelled=lambda: len(kept.states) >= 3, checkpoints=kept, process_count=before)
    with pytest.raises(Cancelled):
        kind.fit(dataset, config, stopped)
    heard = []
    resumed = kind.fit(
        dataset, config, Run(on_epoch=heard.append, checkpoints=kept, process_count=after)
    )
    assert [report.epoch for report in heard] == [1, 2, 3, 4, 5, 6]
    np.testing.assert_allclose(resumed.item_vectors, straight.item_vectors, rtol=1e-4, atol=1e-5)


def test_stops_when_nothing_gets_better():
    """With patience, processes stop after the pass after which one stops."""
    dataset, kind = dataset_of("bpr", low_rank(40, 30, 0.5)), families["bpr"]
    config = kind.config(SMALL | {"epochs": 200, "patience": 2, "learning_rate": 0.05})
    one, two = (kind.fit(dataset, config, Run(process_count=n)) for n in (1, 2))
    assert len(one.epochs) == len(two.epochs) < 200


def test_divergence_keeps_the_best_weights():
    """A loss that is not finite ends the processes with the weights of the checkpoint."""
    dataset, kept, kind = dataset_of("bpr", checkerboard(20)), Kept(), families["bpr"]
    sound = kind.fit(dataset, kind.config(SMALL | {"epochs": 1}), Run(checkpoints=kept))
    poisoned = kind.config(SMALL | {"learning_rate": 1e30, "epochs": 50})
    fitted = kind.fit(dataset, poisoned, Run(checkpoints=kept, process_count=2))
    assert fitted.divergence.reason is Reason.TRAINING_DIVERGED
    assert np.isfinite(fitted.item_vectors).all()
    assert fitted.item_vectors.shape == sound.item_vectors.shape


@pytest.mark.parametrize("passes", [0, 1])
def test_cancel(passes):
    """A training that is cancelled while processes start, or take steps, ends within a second."""
    epochs, cancelled_at = [], []

    def cancelled() -> bool:
        if len(epochs) < passes or not multiprocessing.active_children():
            return False
        cancelled_at.append(time.monotonic())
        return True

    with pytest.raises(Cancelled):
        learn(
            Sums.of(),
            Schedule(epochs=1_000),
            Run(on_epoch=epochs.append, cancelled=cancelled, process_count=3),
        )
    assert time.monotonic() - cancelled_at[0] < 1.0


def test_a_process_that_is_killed_fails_the_training():
    """The error says how it ended and what to do."""

    def kill(_) -> None:
        multiprocessing.active_children()[0].kill()

    with pytest.raises(Aborted) as caught:
        learn(Sums.of(), Schedule(), Run(on_epoch=kill, process_count=3))
    assert caught.value.reason is Reason.WORKER_LOST
    assert "one of the 3 processes of the training was ended by SIGKILL" in caught.value.message
    assert "lower process_count" in caught.value.message


def test_a_signal_to_the_whole_group_is_for_the_first_process():
    """It decides whether a training ends; the others go on until it ends them."""
    told = []

    def ask(_) -> None:
        for child in multiprocessing.active_children():
            for number in (signal.SIGTERM, signal.SIGINT):
                os.kill(child.pid, number)
                told.append(number)

    learn(Sums.of(), Schedule(epochs=3), Run(on_epoch=ask, process_count=2))

    assert len(told) == 6


def test_a_process_that_is_killed_as_it_starts_fails_the_training():
    """It is not waited for."""

    def cancelled() -> bool:
        for child in multiprocessing.active_children():
            child.kill()
        return False

    with pytest.raises(Aborted, match="SIGKILL"):
        learn(Sums.of(), Schedule(), Run(cancelled=cancelled, process_count=2))


def test_a_killed_process_of_a_cancelled_training_is_no_fault():
    """Who stops a worker with all its processes cancels the training."""
    killed = []

    def kill(_) -> None:
        killed.extend(multiprocessing.active_children())
        killed[0].kill()
        killed[0].join()

    run = Run(on_epoch=kill, cancelled=lambda: bool(killed), process_count=2)
    with pytest.raises(Cancelled):
        learn(Sums.of(), Schedule(), run)


@pytest.mark.parametrize("kind", [MemoryError, ZeroDivisionError])
def test_an_error_of_another_process_is_raised_here(kind):
    """One for want of memory is told as such, and others with where they came from."""
    expected = MemoryError if kind is MemoryError else RuntimeError
    with pytest.raises(expected, match=f"(?s)in loss.*{kind.__name__}: of another process"):
        learn(Sums.of(fails=kind), Schedule(), Run(process_count=3))


def test_processes_end_with_the_first_one(tmp_path):
    """When it is killed, the others end by themselves, and what they shared is removed."""
    program = [sys.executable, "-m", __name__]
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    with subprocess.Popen(program, env=environment, stdout=subprocess.PIPE, text=True) as first:
        others = [int(pid) for pid in first.stdout.readline().split()]
        folders = list(tmp_path.glob("milvine-*"))
        first.kill()

    assert (len(others), len(folders)) == (2, 1)
    assert not (folders[0] / "steps").exists()

    end = time.monotonic() + SOON_S
    while any(map(_lives, others)) or list(tmp_path.glob("milvine-*")):
        assert time.monotonic() < end, "a process outlives the first one"
        time.sleep(0.01)


def _lives(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def test_more_processes_than_gpus():
    """Each process needs one of its own."""
    steps, run = Steps.of(Sums.of(), Schedule()), Run("cuda", process_count=65)
    with (
        pytest.raises(FailedPrecondition, match="process_count is 65"),
        together(steps, run),
    ):
        pass


def test_shares_make_up_the_batch():
    """Each user and event of a batch is in one share, and drawn as in the whole."""
    batch = next(Users(histories(), "cpu").batches(2**20, torch.Generator()))
    for count in (1, 2, 3, 13):
        shares = [batch.share(number, count) for number in range(count)]
        for name in ("items", "strengths", "users", "lengths"):
            whole = getattr(batch, name)
            assert torch.equal(torch.cat([getattr(share, name) for share in shares]), whole)
        assert all(torch.equal(torch.repeat_interleave(s.lengths), s.rows) for s in shares)
        users = torch.cat([share.of_users(torch.arange) for share in shares])
        events = torch.cat([share.of_events(torch.arange) for share in shares])
        assert torch.equal(users, torch.arange(len(batch)))
        assert torch.equal(events, torch.arange(len(batch.items)))


def histories() -> Histories:
    """Ten users with 2 to 5 events."""
    lengths = np.arange(10) % 4 + 2
    events = int(lengths.sum())
    return Histories(
        np.concatenate([[0], lengths.cumsum()]),
        np.arange(events, dtype=np.int32) % 7,
        np.ones(events, np.float32),
        np.arange(events),
    )


@dataclass(frozen=True, slots=True, eq=False)
class Sums:
    """A learner of one number, which may fail in the processes that are started."""

    network: nn.Module
    users: Users
    fails: type[Exception] | None

    @classmethod
    def of(cls, fails: type[Exception] | None = None) -> Sums:
        return cls(nn.Linear(1, 1), Users(histories(), "cpu"), fails)

    def batches(self, rng: torch.Generator) -> Iterator[Batch]:
        return self.users.batches(4, rng)

    def examples(self, batch: Batch) -> int:
        return len(batch)

    def loss(self, batch: Batch, rng: torch.Generator) -> Tensor:
        del rng
        if self.fails is not None and multiprocessing.parent_process() is not None:
            raise self.fails("of another process")
        return (self.network(batch.strengths[batch.starts][:, None]) - 3).square().mean()

    def metric(self) -> float | None:
        return None


def _train_until_killed() -> None:
    def tell(_) -> None:
        pids = [str(child.pid) for child in multiprocessing.active_children()]
        sys.stdout.write(" ".join(pids) + "\n")
        sys.stdout.flush()
        signal.pause()

    learn(Sums.of(), Schedule(), Run(on_epoch=tell, process_count=3))


if __name__ == "__main__":
    _train_until_killed()
