"""Processes of the tests that are forked from a server which has imported the library.

An import costs half a second of a core, a fork a few milliseconds: a hundred killed processes import once.
A process that is itself a fork of the tests cannot start them.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import threading
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any

_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(
    [
        "voiceprint.identification.gallery",
        "voiceprint.identification.shared_index",
        "voiceprint.migrations",
        "voiceprint.storage.json.file",
        "voiceprint.storage.redis.store",
        "voiceprint.storage.sql.store",
    ]
)


class ForkedPython:
    """A process that runs `code` with these `sys.argv[1:]`, used like a `subprocess.Popen`.

    It has the environment and the current folder of this process at its start. stdout, stdin: its text files.
    """

    def __init__(self, code: str, *arguments: object, stdin: int | None = None) -> None:
        output, child_output = _SERVER.Pipe(duplex=False)
        child_input, input_ = _SERVER.Pipe(duplex=False)
        given = ["-c", *map(str, arguments)]
        surroundings = (dict(os.environ), os.getcwd())  # noqa: PTH109 - a text
        self._process: Any = _SERVER.Process(
            target=_run, args=(code, given, child_input, child_output, *surroundings), daemon=True
        )
        self._process.start()
        child_output.close()
        child_input.close()
        self.stdout = os.fdopen(os.dup(output.fileno()), "r")
        output.close()
        self.stdin = None if stdin is None else os.fdopen(os.dup(input_.fileno()), "w")
        input_.close()

    @property
    def returncode(self) -> int | None:
        """The exit code; of a process that a signal killed, its number below zero."""
        code: int | None = self._process.exitcode
        return code

    def poll(self) -> int | None:
        """The exit code, or None while it runs."""
        return self.returncode

    def kill(self) -> None:
        """Kill it with SIGKILL, if it still runs."""
        self._process.kill()

    def wait(self, timeout: float | None = None) -> int | None:
        """Wait for its end; gives the exit code."""
        self._process.join(timeout)
        return self.returncode

    def communicate(self, timeout: float = 60) -> tuple[str, None]:
        """Read its output to the end, and wait for its end; it is killed after `timeout` seconds."""
        killer = threading.Timer(timeout, self.kill)
        killer.start()
        if self.stdin is not None:
            self.stdin.close()
        with self.stdout:
            printed = self.stdout.read()
        self.wait()
        killer.cancel()
        return printed, None

    def __enter__(self) -> ForkedPython:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self.kill()
        self.wait()


def _run(
    code: str,
    arguments: list[str],
    stdin: Connection,
    stdout: Connection,
    environment: dict[str, str],
    folder: str,
) -> None:
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    os.dup2(stdin.fileno(), 0)
    os.dup2(stdout.fileno(), 1)
    stdin.close()
    stdout.close()
    sys.stdin, sys.stdout, sys.argv = os.fdopen(0), os.fdopen(1, "w"), arguments
    exec(compile(code, "<forked>", "exec"), {"__name__": "__main__"})
    sys.stdout.flush()
