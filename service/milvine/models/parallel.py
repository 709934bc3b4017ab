"""Several processes that train one model together.

The process that has the training starts the others and hands them all that its steps depend on, in
a file that they map: the data, the weights, the optimizer. Each goes through the same batches and
finds the gradient of its share of each batch; these add up to that of the batch (torch.distributed:
gloo on the processor, NCCL on GPUs). So all take the same steps, and the steps are those of one
process but for the order of sums. The first process alone measures, keeps checkpoints and decides
how the training goes on; the others wait for its word before each pass. They end when it ends them
or is gone.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import socket
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import TypeAlias

import torch
import torch.distributed as dist
from torch import Tensor

from milvine.domain.errors import Aborted, Cancelled, FailedPrecondition, Reason
from milvine.models.base import IsCancelled, Run
from milvine.models.least_squares import quiet_sparse
from milvine.models.steps import Alone, Steps

TakePass: TypeAlias = Callable[[int], float]
"""Takes the steps of the pass with a number, and returns the mean loss."""

_ANSWER_S = 300.0
"""How long a process waits for the others to start, or to take a step."""
_LOOK_S = 0.05
"""How often the first process looks whether it is to stop while it waits for the others."""
_FOR_THE_FIRST = (signal.SIGINT, signal.SIGTERM)
"""Signals to all the processes that only the first one heeds, for it ends the others."""
_END_S = 5.0
"""How long a process that broke off may take to end."""


@contextmanager
def together(steps: Steps, run: Run) -> Iterator[TakePass]:
    """Start the other processes of a run; yields what takes a pass with them, and ends them.

    Raises:
        Cancelled: When `run.cancelled` says so, asked while they start and before each step.
        FailedPrecondition: When there are more processes than GPUs.
        MemoryError: When another process had too little memory.
        Aborted: When another process ended or did not answer.
    """
    if run.process_count == 1:
        device = torch.device(run.device)
        yield lambda epoch: steps.take(epoch, device, Alone(), run.cancelled)
        return
    devices = _devices(run)
    with ExitStack() as stack:
        stack.enter_context(_fewer_threads(run.process_count))
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="milvine-")))
        first, *others = (_Member(n, home, devices) for n in range(run.process_count))
        torch.save(steps, first.steps_file)
        peers = [stack.enter_context(_peer(member)) for member in others]
        try:
            _wait_until_started(peers, run.cancelled)
            with first.met():
                first.steps_file.unlink()
                yield lambda epoch: _take(epoch, steps, first, peers, run.cancelled)
        except _Parted as exc:
            fault = _fault(peers)
            if run.cancelled():
                raise Cancelled from exc
            raise fault from exc


def _take(
    epoch: int,
    steps: Steps,
    first: _Member,
    peers: Sequence[_Peer],
    cancelled: IsCancelled,
) -> float:
    for peer in peers:
        peer.tell(epoch)
    return steps.take(epoch, first.device, first, cancelled)


class _Parted(Exception):
    """Another process did not do its part."""


@dataclass(frozen=True, slots=True)
class _Member:
    """One of the processes that train together."""

    rank: int
    home: Path
    """A folder that all of them see, and no one else."""
    devices: tuple[str, ...]
    """Those of all."""

    @property
    def count(self) -> int:
        """How many they are."""
        return len(self.devices)

    @property
    def device(self) -> torch.device:
        """Its own."""
        return torch.device(self.devices[self.rank])

    @property
    def steps_file(self) -> Path:
        """Where the first one puts what the steps of the others begin with."""
        return self.home / "steps"

    def add_up(self, tensors: Iterable[Tensor]) -> None:
        """Put in place of each tensor the sum of what the processes have of it."""
        try:
            works = [dist.all_reduce(tensor, async_op=True) for tensor in tensors]
            for work in works:
                if work is not None:
                    work.wait()
        except RuntimeError as exc:
            raise _Parted from exc

    @contextmanager
    def met(self) -> Iterator[None]:
        """Meet the others, and part at the end."""
        # What processes of one machine say to each other is not to be heard outside of it.
        os.environ.setdefault("GLOO_SOCKET_IFNAME", _loopback())
        try:
            dist.init_process_group(
                "nccl" if self.device.type == "cuda" else "gloo",
                init_method=(self.home / "meeting").as_uri(),
                rank=self.rank,
                world_size=self.count,
                timeout=timedelta(seconds=_ANSWER_S),
            )
        except RuntimeError as exc:
            raise _Parted from exc
        try:
            yield
        finally:
            dist.destroy_process_group()


@dataclass(frozen=True, slots=True)
class _Broken:
    """The error that ends a process, as it tells of it."""

    told: str
    is_memory: bool


@dataclass(slots=True, eq=False)
class _Peer:
    """Another process, as the first one has it."""

    process: SpawnProcess
    pipe: Connection
    """Takes the numbers of passes; gives None once it has started, and an error as it ends."""
    broken: _Broken | None = None

    def tell(self, epoch: int) -> None:
        """Have it take the steps of a pass."""
        try:
            self.pipe.send(epoch)
        except OSError as exc:
            raise _Parted from exc

    def hear(self) -> None:
        """Hear what it says; raises _Parted where that is an error or its end."""
        try:
            said = self.pipe.recv()
        except (EOFError, OSError) as exc:
            raise _Parted from exc
        if isinstance(said, _Broken):
            self.broken = said
            raise _Parted


@contextmanager
def _peer(member: _Member) -> Iterator[_Peer]:
    """A process that takes the steps of a member; it has nothing to lose when it is ended."""
    context = multiprocessing.get_context("spawn")
    pipe, its_pipe = context.Pipe()
    arguments = (member, torch.get_num_threads(), its_pipe)
    process = context.Process(target=_help, args=arguments, daemon=True)
    with pipe:
        with its_pipe, _signals_held_back():
            process.start()
        try:
            yield _Peer(process, pipe)
        finally:
            process.kill()
            process.join()
            process.close()


@contextmanager
def _signals_held_back() -> Iterator[None]:
    """Hold back, here and in a process that is started, what is for the first process alone."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _FOR_THE_FIRST)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _wait_until_started(peers: Sequence[_Peer], cancelled: IsCancelled) -> None:
    waiting = list(peers)
    latest = time.monotonic() + _ANSWER_S
    while waiting:
        if cancelled():
            raise Cancelled
        if time.monotonic() > latest:
            raise _Parted
        heard = wait([peer.pipe for peer in waiting], _LOOK_S)
        for peer in [peer for peer in waiting if peer.pipe in heard]:
            peer.hear()
            waiting.remove(peer)


def _fault(peers: Sequence[_Peer]) -> Exception:
    """Why the others do their part no more."""
    latest = time.monotonic() + _END_S
    for peer in peers:  # the one that ended first may only have missed another
        peer.process.join(max(latest - time.monotonic(), 0.0))
        with suppress(_Parted):
            while peer.broken is None and peer.pipe.poll():
                peer.hear()
    for broken in (peer.broken for peer in peers if peer.broken):
        return MemoryError(broken.told) if broken.is_memory else RuntimeError(broken.told)
    codes = sorted(h.process.exitcode for h in peers if h.process.exitcode is not None)
    how = f"did not answer for {_ANSWER_S:g} s"
    if codes:
        how = f"was ended by {signal.Signals(-codes[0]).name}" if codes[0] < 0 else "ended"
    return Aborted(
        f"one of the {len(peers) + 1} processes of the training {how}, so the training stopped; "
        "train again, with a lower process_count where the worker's machine had too little memory",
        Reason.WORKER_LOST,
    )


def _help(member: _Member, thread_count: int, first: Connection) -> None:
    """Take the steps of each pass that the first process tells of."""
    for number in _FOR_THE_FIRST:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _FOR_THE_FIRST)
    threading.Thread(target=_end_with_first, args=(member.home,), daemon=True).start()
    torch.set_num_threads(thread_count)
    quiet_sparse()
    if member.device.type == "cuda":
        torch.cuda.set_device(member.device)
    try:
        steps: Steps = torch.load(
            member.steps_file,
            map_location=member.device,
            mmap=True,
            weights_only=False,  # the first process wrote it for this one
        )
        first.send(None)
        with member.met():
            while True:
                steps.take(first.recv(), member.device, member, lambda: False)
    except (_Parted, EOFError):
        return  # the first process knows of it, or is gone
    except Exception as exc:  # noqa: BLE001 - the first process raises it
        is_memory = isinstance(exc, MemoryError | torch.OutOfMemoryError)
        first.send(_Broken(traceback.format_exc(), is_memory))


def _end_with_first(home: Path) -> None:
    """End this process when the first one is gone, whatever it waits for, and tidy up."""
    first = multiprocessing.parent_process()
    if first is not None:
        first.join()
        shutil.rmtree(home, ignore_errors=True)
        os._exit(1)


def _devices(run: Run) -> tuple[str, ...]:
    """A device for each process: the processor for all, or a GPU for each."""
    device = torch.device(run.device)
    if device.type != "cuda":
        return (run.device,) * run.process_count
    available = torch.cuda.device_count()
    if run.process_count > available:
        raise FailedPrecondition(
            f"process_count is {run.process_count}, and each process trains on a GPU of its own; "
            f"the worker has {available}",
            Reason.WRONG_STATE,
        )
    first = device.index or 0
    return tuple(f"cuda:{(first + n) % available}" for n in range(run.process_count))


def _loopback() -> str:
    """The name of the network interface that leads nowhere else."""
    return next(name for _, name in socket.if_nameindex() if name.startswith("lo"))


@contextmanager
def _fewer_threads(process_count: int) -> Iterator[None]:
    """Share the cores of this process among several."""
    threads = torch.get_num_threads()
    torch.set_num_threads(max(threads // process_count, 1))
    try:
        yield
    finally:
        torch.set_num_threads(threads)
