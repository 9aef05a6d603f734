"""`run`: the service as processes, by uvicorn."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
from uvicorn.supervisors import multiprocess

from voiceprint.config import VoiceFingerprintConfig
from voiceprint.galleries import Galleries
from voiceprint.server.app import CONFIG_VARIABLE, GALLERIES_VARIABLE
from voiceprint.server.database import ServerDatabase
from voiceprint.server.keys import ApiKeys
from voiceprint.server.live.settings import LiveSettings
from voiceprint.server.metrics import FOLDER_VARIABLE
from voiceprint.server.protocol import uvicorn_options
from voiceprint.server.settings import PREFIX, ServerSettings


def run(
    given: dict[str, Any], config: str | None, galleries: list[str] | None, say: Callable[[str], None]
) -> None:
    """Serve until SIGINT or SIGTERM.

    given: settings in place of those of the environment. config: file of the galleries; None for the
    configured store. galleries: names to serve; None for all. say: takes lines for the person who started it.
    """
    settings = ServerSettings(**given)
    LiveSettings()
    # All here, once, and not as tracebacks of the workers.
    if config is None:
        VoiceFingerprintConfig()
    else:
        Galleries.open(config, only=galleries).close()
    database = ServerDatabase(settings.state)
    database.check()
    has_keys = ApiKeys(database).has_keys()
    database.close()
    settings.check_exposure(has_keys)
    if not has_keys:
        say("There is no API key yet, which every request needs: `voiceprint keys create --role admin`.")
    # For the workers, which are new processes.
    for name, value in given.items():
        os.environ[f"{PREFIX}{name.upper()}"] = str(value)
    if config is not None:
        os.environ[CONFIG_VARIABLE] = config
    if galleries is not None:
        os.environ[GALLERIES_VARIABLE] = ",".join(galleries)
    scheme = "http" if settings.tls_certificate is None else "https"
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    say(f"Serving on {scheme}://{host}:{settings.port}/. Ctrl-C ends it, once all requests are answered.")
    with _metrics_folder(settings.workers):
        _serve(settings)


@contextmanager
def _metrics_folder(workers: int) -> Iterator[None]:
    """The folder in which several workers write their metrics, unless the environment names one."""
    if workers == 1 or FOLDER_VARIABLE in os.environ:
        yield
        return
    with tempfile.TemporaryDirectory(prefix="voiceprint-metrics-") as folder:
        os.environ[FOLDER_VARIABLE] = folder
        try:
            yield
        finally:
            del os.environ[FOLDER_VARIABLE]


class _Worker(multiprocess.Process):
    """A worker process, whose death ends the supervisor's wait for its sign of life at once.

    The supervisor of uvicorn holds the worker's end of their pipe too. So it waits for a worker that is
    killed while it is asked until `timeout_worker_healthcheck`, and replaces no dead worker meanwhile.
    """

    def start(self) -> None:
        """Start the process, which has its own copy of its end."""
        super().start()
        self.child_conn.close()


def _serve(settings: ServerSettings) -> None:
    multiprocess.Process = _Worker  # type: ignore[misc]  # uvicorn takes no other class
    uvicorn.run(
        "voiceprint.server.app:application",
        factory=True,
        host=settings.host,
        port=settings.port,
        workers=settings.workers,
        ssl_certfile=settings.tls_certificate,
        ssl_keyfile=settings.tls_key,
        **uvicorn_options(settings),
    )
