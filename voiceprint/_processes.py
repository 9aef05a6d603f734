"""Worker processes for long lists, where the GIL would let threads wait for each other.

Each is a fresh interpreter (a fork would copy locks that threads hold, see docs/forks.md) and gets its work
through its standard input: it ends with the parent, also when that is killed. It is in a session of its own,
so that Ctrl-C reaches the parent alone. Nothing is written to files.
"""

from __future__ import annotations

import logging
import os
import pickle
import queue
import select
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, BinaryIO, Final, Generic, NamedTuple, TypeVar

from voiceprint.errors import EncoderError, VoiceprintError

T = TypeVar("T")
R = TypeVar("R")

logger = logging.getLogger(__name__)

LoggedText = tuple[str, int, str]
"""Logger, level and message of a log record."""

Answer = tuple[list[LoggedText], bool, Any]
"""The answer of a worker: what it logged, whether it failed, and its result or `VoiceprintError`."""

# The paths of the parent first, so that the worker imports the same package.
_PROGRAM: Final = (
    "import pickle, sys; sys.path[:] = pickle.load(sys.stdin.buffer); "
    "from voiceprint._processes import main; main()"
)

# A worker is one thread. In glibc, arrays of up to 32 MB stay in the heap: otherwise the system maps and
# clears them anew each time, which takes a tenth of the time. Doubled, more memory is freed late.
_ENVIRONMENT: Final = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MALLOC_MMAP_THRESHOLD_": str(32 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(64 << 20),
}


class WorkerProcesses(Generic[T, R]):
    """`count` processes that each build a function by `setup(*arguments)`, and call it.

    setup: a function of a module, which returns the function that does the work. Its arguments, the items and
        the results are pickled. Warnings that a worker logs are logged here.
    answer: answers a question that the function asks by `ask`, in the thread that called the function; such
        as for a device that the processes share. None: the function asks none.
    """

    def __init__(
        self,
        count: int,
        setup: Callable[..., Callable[[T], R]],
        *arguments: Any,
        answer: Callable[[Any], Any] | None = None,
    ) -> None:
        self._workers: list[_Worker] = []
        self._idle: queue.SimpleQueue[_Worker] = queue.SimpleQueue()
        try:
            for _ in range(count):
                worker = _Worker(setup, arguments, answer)
                self._workers.append(worker)
                self._idle.put(worker)
        except BaseException:
            self.close()
            raise

    def call(self, item: T) -> R:
        """The result of the function, from an idle worker; waits for one. Called from several threads.

        Raises the `VoiceprintError` of the function, and `EncoderError` where the worker ended.
        """
        worker = self._idle.get()
        try:
            result: R = worker.call(item)
        finally:
            self._idle.put(worker)
        return result

    def close(self) -> None:
        """End the processes."""
        for worker in self._workers:
            worker.close()

    def __enter__(self) -> WorkerProcesses[T, R]:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Worker:
    def __init__(
        self, setup: Callable[..., Any], arguments: Sequence[Any], answer: Callable[[Any], Any] | None
    ) -> None:
        self._answer = answer
        try:
            self._process = subprocess.Popen(  # noqa: S603  this interpreter
                [sys.executable, "-c", _PROGRAM],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                start_new_session=True,
                env=_ENVIRONMENT | os.environ,
            )
        except OSError as error:
            raise EncoderError(f"A worker process cannot be started ({error}): use fewer.") from error
        self._send(sys.path, setup, arguments)

    def _send(self, *objects: Any) -> None:
        assert self._process.stdin is not None  # noqa: S101  a pipe
        with suppress(BrokenPipeError):  # the worker has ended: `call` reports it
            for each in objects:
                pickle.dump(each, self._process.stdin)
            self._process.stdin.flush()

    def call(self, item: Any) -> Any:
        self._send(item)
        while isinstance(message := self._receive(), _Question):
            self._send(self._answered(message))
        records, is_error, answer = message
        for name, level, text in records:
            logging.getLogger(name).log(level, "%s", text)
        if is_error:
            raise answer
        return answer

    def _answered(self, question: _Question) -> tuple[bool, Any]:
        assert self._answer is not None  # noqa: S101  the function of the worker belongs to it
        return answered(partial(self._answer, question.content))

    def _receive(self) -> Any:
        assert self._process.stdout is not None  # noqa: S101  a pipe
        try:
            return pickle.load(self._process.stdout)  # noqa: S301  our own process
        except (EOFError, pickle.UnpicklingError, OSError) as error:  # it ended, perhaps in the middle
            code = self._process.wait()
            why = f"by signal {-code}" if code < 0 else f"with exit code {code}"
            raise EncoderError(
                f"A worker process ended {why}, perhaps for want of memory: use fewer (--processes)."
            ) from error

    def close(self) -> None:
        self._process.terminate()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with suppress(BrokenPipeError):  # an item that the worker did not read
                    pipe.close()


class _Question(NamedTuple):
    """A question of a worker to its parent, sent in place of a result."""

    content: Any


_asking: Callable[[Any], Any] | None = None  # in a worker


def ask(question: Any) -> Any:
    """The answer of the parent to a question, in a worker process; both are pickled.

    Raises the `VoiceprintError` of the parent.
    """
    assert _asking is not None  # noqa: S101  called in a worker alone
    return _asking(question)


def main() -> None:
    """The main function of a worker."""
    output = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # a stray print must not end up between the results
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        serve(sys.stdin.buffer, output)
    except (BrokenPipeError, EOFError):  # nobody is left to read the result
        os._exit(0)


def _end_with_parent() -> None:
    """End this process, also in the middle of its work, when the parent has closed its end of the input."""
    poll = select.poll()
    poll.register(0, 0)  # reports the end alone
    poll.poll()
    os._exit(0)


def serve(items: BinaryIO, results: BinaryIO) -> None:
    """Call the function that the first two objects of `items` build, for each further object.

    Raises EOFError at the end of the items.
    """
    global _asking

    def asking(question: Any) -> Any:
        pickle.dump(_Question(question), results)
        results.flush()
        is_error, answer = pickle.load(items)  # noqa: S301  from the parent
        if is_error:
            raise answer
        return answer

    _asking = asking
    setup, arguments = pickle.load(items), pickle.load(items)  # noqa: S301  from the parent
    records = Records(logging.WARNING)
    package = logging.getLogger("voiceprint")
    package.addHandler(records)
    work: Callable[[Any], Any] | None = None

    def result(item: Any) -> Any:
        nonlocal work
        if work is None:
            work = setup(*arguments)
        return work(item)

    try:
        while True:
            item = pickle.load(items)  # noqa: S301  from the parent
            is_error, answer = answered(partial(result, item))
            pickle.dump((records.take(), is_error, answer), results)
            results.flush()
    finally:
        package.removeHandler(records)


def answered(work: Callable[[], Any]) -> tuple[bool, Any]:
    """False and the result of `work`, or True and its `VoiceprintError`, to be raised in the parent."""
    try:
        return False, work()
    except VoiceprintError as error:  # raised again in the parent
        return True, error


class Records(logging.Handler):
    """Collects the warnings of the package as (logger, level, message).

    thread: of which alone to collect them, by its identifier; None is all.
    """

    def __init__(self, level: int, thread: int | None = None) -> None:
        super().__init__(level)
        self._thread = thread
        self._records: list[LoggedText] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Add a record."""
        if self._thread in (None, record.thread):
            self._records.append((record.name, record.levelno, record.getMessage()))

    def take(self) -> list[LoggedText]:
        """The records since the last call."""
        records, self._records = self._records, []
        return records
