"""A real dask cluster on this machine: a scheduler in this process, and worker processes with nannies."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from distributed import LocalCluster


@contextmanager
def cluster(workers: int = 2, memory_limit: str | int = 0) -> Iterator[LocalCluster]:
    """Workers of one thread each. memory_limit: 0 for none, where dask has no reason to write to the disk."""
    before = {name: os.environ.pop(name) for name in list(os.environ) if name.startswith("VOICE_")}
    try:  # the settings of this process are not those of another machine
        made = LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            memory_limit=memory_limit,
            dashboard_address="127.0.0.1:0",  # any port: other tests may use the usual one
        )
    finally:
        os.environ.update(before)
    with made:
        yield made


def process_ids(made: LocalCluster) -> list[int]:
    """The process ids of the workers, not of their nannies."""
    return [nanny.pid for nanny in made.workers.values()]
