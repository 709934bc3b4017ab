"""Fits implicit's alternating least squares; run by the Python of implicit's own environment.

    python implicit_als.py world.npz settings.json out.npz

Says `{"loaded_mb": …}` on stdout when it has read the data, then `{"seconds": …, "cpu_s": …}` after
each iteration, and waits for a line on stdin before each, so that iterations of several programs
take turns. At the end `{"peak_mb": …}` is said, and the vectors are in out.npz.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # as implicit asks for

import numpy as np
from implicit.cpu.als import AlternatingLeastSquares
from scipy import sparse


def _say(**what: float) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


def _peak_mb() -> float:
    # What getrusage tells begins with what the process that started this one had.
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


class _Clock:
    """Times iterations, without the waits between them."""

    def wait(self) -> None:
        """Wait for the next turn."""
        sys.stdin.readline()
        self._start, self._cpu_start = time.perf_counter(), time.process_time()

    def end(self, _iteration: int, _seconds: float, _loss: float | None = None) -> None:
        """Say how long an iteration took."""
        _say(
            seconds=time.perf_counter() - self._start,
            cpu_s=time.process_time() - self._cpu_start,
        )
        self.wait()


def main() -> None:
    """Fit as the arguments say."""
    world_file, settings_file, out_file = map(Path, sys.argv[1:])
    world = np.load(world_file)
    shape = (len(world["offsets"]) - 1, int(world["item_count"]))
    ones = np.ones(len(world["items"]), np.float32)
    matrix = sparse.csr_matrix((ones, world["items"], world["offsets"]), shape=shape)
    model = AlternatingLeastSquares(**json.loads(settings_file.read_text()))
    _say(loaded_mb=_peak_mb())
    clock = _Clock()
    clock.wait()
    model.fit(matrix, show_progress=False, callback=clock.end)
    _say(peak_mb=_peak_mb())
    np.savez(out_file, users=model.user_factors, items=model.item_factors)


if __name__ == "__main__":
    main()
