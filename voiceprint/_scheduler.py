"""Workers of other machines: those of a dask scheduler, behind the interface of `WorkerProcesses`.

The workers compute and store nothing. The result of a task is released as soon as it is taken. Workers that
may write results to their disk are refused: embeddings are biometric data.
"""

from __future__ import annotations

import asyncio
import logging
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import contextmanager
from typing import Any, Final, Generic, TypeVar

from voiceprint._processes import Answer, Records, WorkerProcesses, answered
from voiceprint.errors import ConfigurationError, EncoderError, InvalidArgumentError
from voiceprint.validation import shown

T = TypeVar("T")
R = TypeVar("R")

MOST_TASKS: Final = 256
"""Tasks in flight at most, each with a thread of this process that waits for it. Doubled, this process holds
twice as many results at once, which it cannot store faster."""

_TASKS_PER_THREAD: Final = 2
"""Tasks for each thread of the workers: one is computed, and the next is there when it ends. Doubled, more
paths and results are in memory, and nothing is faster."""

_CONNECT_S: Final = 10.0  # for a scheduler in the same data center; doubled, a wrong address is noticed later
_WORKERS_S: Final = 30.0
"""The longest time of a scheduler without workers: a worker that was killed starts again in some seconds.
Doubled, a run whose workers have ended for good ends later."""

_LOOK_S: Final = 5.0  # between two looks at the workers, while a task takes long

_ADDRESS: Final = re.compile(r"(tcp|tls|ws|wss)://[^\s/]+:\d+")


def check_scheduler(address: object) -> str:
    """The address of a scheduler, such as tcp://HOST:PORT. Raises `InvalidArgumentError`."""
    if not isinstance(address, str) or not _ADDRESS.fullmatch(address):
        raise InvalidArgumentError(
            f"scheduler is {shown(address)}: give the address that the scheduler prints, such as "
            "tcp://10.0.0.5:8786, or tls://10.0.0.5:8786."
        )
    return address


class SchedulerWorkers(Generic[T, R]):
    """The workers of a dask scheduler, which build a function by `setup(*arguments)`, and call it.

    address: of the scheduler. setup: a function of a module, called for each item: what takes long to build,
    it takes from a cache of the process. Its arguments, the items and the results are pickled. Warnings that
    a worker logs are logged here. The task of a worker that ends is given to another, up to three times.

    Raises `ConfigurationError` without the extra `dask`, and `EncoderError` where the scheduler cannot be
    reached or has no workers.
    """

    def __init__(self, address: str, setup: Callable[..., Callable[[T], R]], *arguments: Any) -> None:
        self._address = check_scheduler(address)
        try:
            from distributed import Client, Security
        except ImportError as error:
            raise ConfigurationError(
                'A scheduler needs the extra dask: pip install "opusagent-voiceprint[dask]".'
            ) from error
        self._setup, self._arguments = setup, arguments
        advice = "set dask's certificates (distributed.comm.tls.ca-file, client.key and client.cert)"
        # Without them, dask's client fails, and its end then waits for 20 s.
        secure = self._address.startswith(("tls:", "wss:"))
        if secure and Security().get_connection_args("client").get("ssl_context") is None:
            raise ConfigurationError(f"The scheduler {self._address} needs TLS: {advice}.")
        try:
            self._client = Client(self._address, timeout=_CONNECT_S, set_as_default=False)
        except (OSError, ValueError, RuntimeError) as error:  # ValueError: TLS is required, and not used
            raise EncoderError(
                f"The scheduler {self._address} cannot be reached ({_reason(error)}): start it by `dask "
                f"scheduler`, and give its address; for tls://, {advice}."
            ) from error
        try:
            self._client.wait_for_workers(1, timeout=_WORKERS_S)
            threads = sum(self._client.nthreads().values())
        except asyncio.TimeoutError as error:
            self.close()
            raise self._without_workers() from error
        except BaseException:
            self.close()
            raise
        self.count = max(1, min(MOST_TASKS, _TASKS_PER_THREAD * threads))
        """Tasks in flight: the threads to call `call` from."""

    def call(self, item: T) -> R:
        """The result of the function, from a worker. Called from several threads.

        Raises the `VoiceprintError` of the function; `ConfigurationError` for a worker that is of another
        version, or may write results to its disk; and `EncoderError` where the workers or the scheduler
        ended.
        """
        from distributed import KilledWorker

        from voiceprint import __version__

        future = self._client.submit(
            _work, __version__, self._setup, self._arguments, item, pure=False, retries=0
        )
        try:
            records, is_error, answer = self._result(future)
        except KilledWorker as error:
            raise EncoderError(
                "Each worker that got these recordings ended, perhaps for want of memory: give the workers "
                "fewer threads or more memory, or leave the recordings out."
            ) from error
        except CancelledError as error:  # the client has given the scheduler up
            raise EncoderError(
                f"The scheduler {self._address} was lost: start it again, and run the same command again."
            ) from error
        except (EncoderError, ConfigurationError):
            raise
        # Whatever a worker raises that cannot import this package, or read what it was sent.
        except Exception as error:
            raise EncoderError(
                f"A worker failed ({_reason(error)}): install opusagent-voiceprint {__version__} with the "
                "same extras on every worker."
            ) from error
        finally:
            future.release()
        for name, level, text in records:
            logging.getLogger(name).log(level, "%s", text)
        if is_error:
            raise answer
        result: R = answer
        return result

    def _result(self, future: Any) -> Answer:
        alone = 0.0  # seconds without a worker
        found: Answer
        while True:
            try:
                found = future.result(timeout=_LOOK_S)
                break
            except asyncio.TimeoutError:  # the task takes long, or nobody computes it
                if future.done():  # meanwhile, or by an error of this class
                    found = future.result()
                    break
                alone = 0.0 if self._client.nthreads() else alone + _LOOK_S
                if alone >= _WORKERS_S:
                    raise self._without_workers() from None
        return found

    def _without_workers(self) -> EncoderError:
        return EncoderError(
            f"The scheduler {self._address} has no workers: start some by `dask worker {self._address} "
            "--memory-limit 0`, and run the same command again."
        )

    def close(self) -> None:
        """Leave the scheduler, which forgets the tasks of this process."""
        self._client.close()

    def __enter__(self) -> SchedulerWorkers[T, R]:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@contextmanager
def workers(
    setup: Callable[..., Callable[[T], R]],
    arguments: Sequence[Any],
    *,
    processes: int,
    scheduler: str | None,
    answer: Callable[[Any], Any] | None = None,
) -> Iterator[tuple[Callable[[T], R], int]]:
    """A function that gives items to workers, and the number of threads to call it from.

    The workers are those of the scheduler, or without one this number of processes. answer: as of
    `WorkerProcesses`; workers of a scheduler ask nothing.
    """
    if scheduler is not None:
        with SchedulerWorkers[T, R](scheduler, setup, *arguments) as others:
            yield others.call, others.count
        return
    with WorkerProcesses[T, R](processes, setup, *arguments, answer=answer) as own:
        yield own.call, processes


def _work(version: str, setup: Callable[..., Callable[[Any], Any]], arguments: Any, item: Any) -> Answer:
    """The answer of a worker."""
    fault = _fault(version)
    if fault is not None:
        return [], True, fault
    package, records = logging.getLogger("voiceprint"), Records(logging.WARNING, threading.get_ident())
    package.addHandler(records)
    try:
        is_error, answer = answered(lambda: setup(*arguments)(item))
    finally:
        package.removeHandler(records)
    return records.take(), is_error, answer


def _fault(version: str) -> ConfigurationError | None:
    """The reason why this worker must not work for a client of this version; None without a reason."""
    from distributed import get_worker

    from voiceprint import __version__

    if version != __version__:
        return ConfigurationError(
            f"A worker has opusagent-voiceprint {__version__}, and this process {version}: install the same."
        )
    if not isinstance(get_worker().data, dict):  # a buffer that writes what does not fit to the disk
        return ConfigurationError(
            "A worker may write embeddings to its disk: start all workers with DASK_DISTRIBUTED__WORKER__"
            "MEMORY__TARGET=False and DASK_DISTRIBUTED__WORKER__MEMORY__SPILL=False in their environment."
        )
    return None


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
