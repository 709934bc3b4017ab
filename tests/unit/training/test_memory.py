"""What is told of memory that ran out."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch

from milvine.domain.errors import LimitReached, Reason
from milvine.domain.model import ModelConfig
from milvine.training import memory_told

CONFIG = ModelConfig("sasrec", {"embedding_size": 2_048})
TOO_MUCH = 2**50


def numpy_asks():
    np.empty(TOO_MUCH, np.float64)


def torch_asks():
    torch.empty(TOO_MUCH, dtype=torch.float64)


def cuda_asks():
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9.00 GiB")


@pytest.mark.parametrize("asks", [numpy_asks, torch_asks, cuda_asks])
def test_memory_that_runs_out_is_told(asks):
    """Whoever asked, the error names the settings to lower, and carries no library's text."""
    with pytest.raises(LimitReached) as caught, memory_told(CONFIG):
        asks()
    assert (caught.value.code, caught.value.reason) == ("RESOURCE_EXHAUSTED", Reason.OUT_OF_MEMORY)
    assert caught.value.message == (
        "the training needs more memory than its worker has; lower embedding_size, which is 2,048 "
        "or batch_size, which is 1,024 or history_length, which is 50 or negative_count, which is "
        "512, or let a worker with more memory train it"
    )


def test_processes_need_memory_each():
    """Where several train, the error names their number as well."""
    with (
        pytest.raises(LimitReached, match=" or process_count, which is 4, or let a worker with"),
        memory_told(CONFIG, process_count=4),
    ):
        raise MemoryError


def test_other_errors_are_not_of_memory():
    """A fault of the code stays what it is."""
    with pytest.raises(RuntimeError, match="shapes"), memory_told(CONFIG):
        raise RuntimeError("shapes do not match")


def test_a_fit_without_memory_stores_nothing(tmp_path):
    """A process that may have no more memory ends its fit with the error, and goes on."""
    script = textwrap.dedent(
        """
        import resource, sys
        from pathlib import Path
        import torch
        from milvine.artifacts import Artifacts
        from milvine.domain.errors import LimitReached
        from milvine.domain.model import Holdout, HoldoutMethod, ModelConfig
        from milvine.training import memory_told, train
        from tests.unit.models.worlds import CATALOG, table

        torch.set_num_threads(1)
        rows = table([(f"u{n % 97}", f"i{n}", "rate", 5.0, n) for n in range(60_000)])

        def fit(size):
            config = ModelConfig("bpr", {"embedding_size": size, "epochs": 1})
            with memory_told(config):
                train(
                    rows, CATALOG, config, Holdout(HoldoutMethod.NONE), model_id=f"m{size}",
                    display_name="", artifacts=Artifacts(sys.argv[1]), device="cpu",
                    report=lambda _: None, cancelled=lambda: False, checkpoints="c",
                )

        fit(2)
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + 2**28, -1))
        try:
            fit(2_048)
        except LimitReached as fault:
            print(fault.reason)
        fit(4)
        """
    )
    command = [sys.executable, "-c", script, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout == "OUT_OF_MEMORY\n", done.stderr
    assert {path.parent.name for path in tmp_path.glob("*/model.json")} == {"m2", "m4"}
