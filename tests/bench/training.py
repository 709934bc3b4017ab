"""How fast models are trained: ALS beside `implicit`, and what each gradient family gets through.

    python -m tests.bench.training data/gowalla

`implicit` is installed into an environment of the benchmark's own, build/implicit. Both it and
milvine fit the same data with as many factors, iterations and cores, an iteration of one after an
iteration of the other. Every fit is a process of its own, so that its peak memory is its own. The
last line on stdout is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import venv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from milvine.models import Histories, Vocabulary
from milvine.training import ranking_metrics
from milvine.training.device import resolve_device
from tests.bench import datasets
from tests.bench.datasets import Split
from tests.bench.report import console, finish, stop_cleanly_on_sigterm
from tests.bench.turns import Fitting, take_turns

FACTORS, ITERATIONS = 64, 10
ALS = {
    "embedding_size": FACTORS,
    "epochs": ITERATIONS,
    "unobserved_weight": 0.015,
    "regularization": 0.003,
}
"""As tuned for Gowalla on a part of its training data."""
IMPLICIT = {"factors": FACTORS, "iterations": ITERATIONS, "alpha": 60.0, "regularization": 20.0}
"""The best of a grid on a part of Gowalla's training data."""
GRADIENT_FAMILIES = (
    *("bpr", "softmax_mf", "lightgcn", "neural_cf", "mult_vae", "two_tower", "sasrec"),
)
PASSES = 2
"""Of a gradient family; the faster one counts."""
SHARES = (0.125, 0.25, 0.5, 1.0)
"""Of the users whose interactions a gradient family learns from."""
PEER = "implicit==0.7.3"
PEER_HOME = Path("build/implicit")
_SCORES = 2**25


@dataclass(frozen=True, slots=True, eq=False)
class World:
    """A data set as its rows."""

    split: Split
    users: Vocabulary
    items: Vocabulary
    user_rows: NDArray[np.int32]
    item_rows: NDArray[np.int32]

    @classmethod
    def of(cls, split: Split) -> World:
        """The rows of a split's training part, in the order of users."""
        users, items = (Vocabulary.of(split.train[name]) for name in ("user_id", "item_id"))
        user_rows, item_rows = (
            users.rows(split.train["user_id"]),
            items.rows(split.train["item_id"]),
        )
        order = np.argsort(user_rows, kind="stable")
        return cls(split, users, items, user_rows[order], item_rows[order])

    def save(self, path: Path, share: float) -> int:
        """Write what a share of the users did; how many interactions that is."""
        count = round(len(self.users) * share)
        chosen = np.zeros(len(self.users), bool)
        chosen[np.random.default_rng(0).permutation(len(self.users))[:count]] = True
        kept = chosen[self.user_rows]
        lengths = np.bincount(self.user_rows, minlength=len(self.users))[chosen]
        np.savez(
            path,
            offsets=np.concatenate(([0], np.cumsum(lengths))),
            items=self.item_rows[kept],
            item_count=len(self.items),
        )
        return int(kept.sum())

    def quality(self, path: Path) -> dict[str, float]:
        """The protocol's metrics of the vectors in a file."""
        found = np.load(path)
        asked = [user for user in self.users.ids.to_pylist() if user in self.split.held_out]
        rows = self.users.rows(asked)
        lists = self._lists(
            torch.from_numpy(found["users"]), torch.from_numpy(found["items"]), rows
        )
        held = [self.split.held_out[user] for user in asked]
        cutoff = self.split.cutoff
        (metrics,) = ranking_metrics(lists, held, cutoffs=[cutoff], item_count=len(self.items))
        return {f"{name}@{cutoff}": round(getattr(metrics, name), 4) for name in self.split.metrics}

    def _lists(
        self, users: torch.Tensor, items: torch.Tensor, rows: NDArray[np.int32]
    ) -> list[list[str]]:
        histories = self._histories()
        names = np.array(self.items.ids.to_pylist())
        lists: list[list[str]] = []
        for some in np.array_split(rows.astype(np.int64), len(rows) * len(items) // _SCORES + 1):
            scores = users[some] @ items.mT
            seen = histories.take(some)
            scores[seen.users, seen.items] = -torch.inf
            lists += names[scores.topk(self.split.cutoff, dim=1).indices.numpy()].tolist()
        return lists

    def _histories(self) -> Histories:
        lengths = np.bincount(self.user_rows, minlength=len(self.users))
        offsets = np.concatenate(([0], np.cumsum(lengths)))
        events = len(self.item_rows)
        return Histories(
            offsets, self.item_rows, np.ones(events, np.float32), np.zeros(events, np.int64)
        )


@dataclass(frozen=True, slots=True)
class Bench:
    """Where the fits run."""

    world: World
    home: Path
    device: str
    threads: int
    processes: int
    """Of a gradient family's fit; they share the threads."""

    def als(self, on_turn: Callable[[], None]) -> dict[str, object]:
        """ALS beside both solvers of implicit."""
        everything = self.home / "all.npz"
        self.world.save(everything, 1.0)
        commands = {"milvine": self._ours("als", ALS, everything, self.home / "milvine.npz")}
        for name, is_cg in (("implicit_cg", True), ("implicit_cholesky", False)):
            settings = {**IMPLICIT, "use_cg": is_cg, "num_threads": self.threads, "random_state": 0}
            commands[name] = (
                *(peer_python(), "tests/bench/implicit_als.py", everything),
                *(self._written(name, settings), self.home / f"{name}.npz"),
            )
        fits = take_turns(commands, on_turn)
        return self._als_figures(fits)

    def _als_figures(self, fits: Mapping[str, Fitting]) -> dict[str, object]:
        ours, peer = fits["milvine"].s_per_iter, fits["implicit_cg"].s_per_iter
        return {
            **{f"{name}_s_per_iter": round(fit.s_per_iter, 4) for name, fit in fits.items()},
            "ratio": round(ours / peer, 3),
            **{f"{name}_cpu_s_per_iter": round(f.cpu_s_per_iter, 4) for name, f in fits.items()},
            **{f"{name}_total_s": round(fit.total_s, 3) for name, fit in fits.items()},
            **{f"{name}_peak_mb": round(fit.said["peak_mb"]) for name, fit in fits.items()},
            **{name: self.world.quality(self.home / f"{name}.npz") for name in fits},
            "factors": FACTORS,
            "iterations": ITERATIONS,
        }

    def family(self, name: str, on_turn: Callable[[], None]) -> dict[str, object]:
        """What a gradient family gets through, by how much there is to learn from."""
        rates = {}
        for share in SHARES:
            path = self.home / f"share_{share}.npz"
            count = self.world.save(path, share)
            command = self._ours(name, {"epochs": PASSES}, path)
            fit = take_turns({name: command}, on_turn)[name]
            rates[f"{share:g}"] = round(count / min(fit.seconds))
        return {
            "interactions_per_s": rates["1"],
            "s_per_pass": round(min(fit.seconds), 3),
            "interactions_per_s_by_share": rates,
            "growth": round(rates["1"] / rates[f"{SHARES[0]:g}"], 3),
            **{what: round(size) for what, size in fit.said.items()},
        }

    def _ours(
        self, family: str, settings: Mapping[str, float], world: Path, *out: Path
    ) -> Sequence[str | Path]:
        told = {
            "family": family,
            "settings": settings,
            "device": self.device,
            "threads": self.threads,
            "processes": 1 if family == "als" else self.processes,
        }
        module = (sys.executable, "-m", "tests.bench.fitting")
        return (*module, world, self._written(family, told), *out)

    def _written(self, name: str, settings: Mapping[str, object]) -> Path:
        path = self.home / f"{name}.json"
        path.write_text(json.dumps(settings))
        return path


def peer_python() -> Path:
    """The Python of implicit's environment, which is made where there is none."""
    python = PEER_HOME / "bin" / "python"
    ready = PEER_HOME / "ready"
    if not ready.is_file():
        console.print(f"installing {PEER} into {PEER_HOME}")
        venv.create(PEER_HOME, clear=True, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", PEER], check=True)
        ready.touch()
    return python


def measure(
    folder: Path, families: Sequence[str], device: str, *, threads: int, processes: int
) -> dict[str, object]:
    """Run the benchmark for `als` and the gradient families that are named."""
    columns = (TextColumn("{task.description:<24}"), BarColumn(), TimeElapsedColumn())
    result: dict[str, object] = {}
    with (
        tempfile.TemporaryDirectory() as home,
        Progress(*columns, console=console) as progress,
    ):
        bench = Bench(World.of(datasets.read(folder)), Path(home), device, threads, processes)
        for name in families:
            turns = 3 * (ITERATIONS + 1) if name == "als" else len(SHARES) * (PASSES + 1)
            bar = progress.add_task(name, total=turns)
            if not console.is_terminal:
                console.print(name)

            def on_turn(bar=bar) -> None:
                progress.advance(bar)

            result[name] = bench.als(on_turn) if name == "als" else bench.family(name, on_turn)
            console.print(name, json.dumps(result[name]))

    name = torch.cuda.get_device_name(device) if device.startswith("cuda") else "cpu"
    return {**result, "device": name, "threads": threads, "processes": processes}


def main() -> None:
    """Read the arguments and print the figures."""
    parser = argparse.ArgumentParser(prog="bench-training", description=__doc__)
    parser.add_argument("data", type=Path, nargs="?", default=datasets.default_folder())
    parser.add_argument("--device", default="auto", help="the torch device of milvine's fits")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument(
        "--processes", type=int, default=1, help="those that fit a gradient family together"
    )
    known = ("als", *GRADIENT_FAMILIES)
    parser.add_argument("--model", action="append", choices=known, help="only these families")
    asked = parser.parse_args()
    stop_cleanly_on_sigterm()
    device = resolve_device(asked.device)
    families, cores = asked.model or known, {"threads": asked.threads, "processes": asked.processes}
    finish(measure(asked.data, families, device, **cores))


if __name__ == "__main__":
    main()
