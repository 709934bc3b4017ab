"""Programs that fit models in turns, an iteration at a time, so that they meet the same machine."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median


@dataclass(slots=True, eq=False)
class Fitting:
    """A program that fits, and what it has said."""

    process: subprocess.Popen[str]
    seconds: list[float] = field(default_factory=list)
    """One an iteration."""
    cpu_seconds: list[float] = field(default_factory=list)
    """What the cores did in each."""
    said: dict[str, float] = field(default_factory=dict)
    """What else it said, as its peak memory."""
    total_s: float = 0.0
    """From the first turn to the last, without the turns of others."""

    @property
    def is_done(self) -> bool:
        """Whether it has come to its end."""
        return "peak_mb" in self.said

    @property
    def s_per_iter(self) -> float:
        """The median of the iterations but the first, which has the preparation besides."""
        return median(self.seconds[1:] or self.seconds)

    @property
    def cpu_s_per_iter(self) -> float:
        """The same of the cores' time, which other work on the machine hardly changes."""
        return median(self.cpu_seconds[1:] or self.cpu_seconds)

    def turn(self) -> None:
        """Let it do an iteration, or what is left after the last."""
        if self.process.stdin is None:
            raise RuntimeError("the program was started without pipes")
        start = time.perf_counter()
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        self.listen()
        self.total_s += time.perf_counter() - start

    def listen(self) -> None:
        """Wait for what it says next."""
        line = self.process.stdout.readline() if self.process.stdout else ""
        if not line:
            raise RuntimeError(f"{self.process.args} ended with {self.process.wait()}")
        news: dict[str, float] = json.loads(line)
        if "seconds" in news:
            self.seconds.append(news.pop("seconds"))
            self.cpu_seconds.append(news.pop("cpu_s"))
        self.said.update(news)


@contextmanager
def fitting(command: Sequence[str | Path]) -> Iterator[Fitting]:
    """A program that takes turns, stopped at the end."""
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
        try:
            yield Fitting(process)
            process.wait(60)
        finally:
            process.kill()


def take_turns(
    commands: Mapping[str, Sequence[str | Path]], on_turn: Callable[[], None]
) -> dict[str, Fitting]:
    """Run programs to their ends, an iteration of each after the other."""
    with ExitStack() as stack:
        fits = {name: stack.enter_context(fitting(command)) for name, command in commands.items()}
        for fit in fits.values():
            fit.listen()  # it is ready
        while waiting := [fit for fit in fits.values() if not fit.is_done]:
            for fit in waiting:
                fit.turn()
                on_turn()
        return fits
