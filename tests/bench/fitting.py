"""Fits one family in a process of its own, so that its peak memory is its own.

    python -m tests.bench.fitting world.npz settings.json [out.npz]

Takes turns as `implicit_als` does. The settings name the family, the device, the number of
threads and of processes that share them beside what the family is told. Memory and the cores' time
are those of the first process.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np
import torch

from milvine.domain.model import EpochReport
from milvine.models import Dataset, Histories, Run, Vocabulary, families


class _Clock:
    """Times passes, without the waits between them."""

    def __init__(self, device: str) -> None:
        self._device = device
        self._start = self._cpu_start = 0.0

    def wait(self) -> None:
        """Wait for the next turn."""
        sys.stdin.readline()
        self._start, self._cpu_start = time.perf_counter(), time.process_time()

    def end(self, _: EpochReport) -> None:
        """Say how long the pass took."""
        if self._device.startswith("cuda"):
            torch.cuda.synchronize()
        _say(
            seconds=time.perf_counter() - self._start,
            cpu_s=time.process_time() - self._cpu_start,
        )
        self.wait()


def _say(**what: float) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


def _peak_mb() -> float:
    # What getrusage tells begins with what the process that started this one had.
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def read(path: Path) -> Dataset:
    """The data set of a file: `offsets`, `items` and `item_count`; places are times."""
    world = np.load(path)
    items = world["items"]
    histories = Histories(
        world["offsets"],
        items,
        np.ones(len(items), np.float32),
        np.arange(len(items), dtype=np.int64),
    )
    users, names = (
        Vocabulary([str(row) for row in range(count)])
        for count in (len(histories), int(world["item_count"]))
    )
    return Dataset(users, names, histories)


def main() -> None:
    """Fit as the arguments say."""
    world_file, settings_file, *out_files = map(Path, sys.argv[1:])
    told = json.loads(settings_file.read_text())
    torch.set_num_threads(told["threads"])
    family = families[told["family"]]
    config = family.config(told["settings"])
    dataset = read(world_file)
    _say(loaded_mb=_peak_mb())
    clock = _Clock(told["device"])
    clock.wait()
    run = Run(told["device"], clock.end, process_count=told["processes"])
    fitted = family.fit(dataset, config, run)
    _say(peak_mb=_peak_mb())
    for out_file in out_files:
        users = family.encoder(config, fitted.tensors).encode(dataset.histories)
        np.savez(out_file, users=users, items=fitted.item_vectors)


if __name__ == "__main__":
    main()
