"""A service on a loopback port, by uvicorn in a thread of the tests."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import uvicorn

from voiceprint.server import Service, create_app
from voiceprint.server.protocol import uvicorn_options


class Running(NamedTuple):
    """A service that answers at `url`. stop: ends it, as SIGTERM does, and waits."""

    service: Service
    url: str
    stop: Callable[[], None]

    def key(self, *roles: str, **options: Any) -> str:
        """A new API key; options as of `ApiKeys.create`."""
        return self.service.keys.create(roles, **options)[0]

    def headers(self, *roles: str, **options: Any) -> dict[str, str]:
        """The headers with a new API key."""
        return {"Authorization": f"Bearer {self.key(*roles, **options)}"}


@contextmanager
def serve(service: Service, *, is_awaited: bool = True, **options: Any) -> Iterator[Running]:
    """Serve until the end of the block, which closes the service. options: of `uvicorn.Config`.

    is_awaited: fail where the service does not end within 30 s; else wait for 5 s.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        # Given as a socket: another process cannot take the port in between.
        options = {**uvicorn_options(service.settings), "timeout_graceful_shutdown": 10, **options}
        app = create_app(service)
        app.openapi()  # FastAPI builds its routes here, with filters of warnings that are for one thread
        config = uvicorn.Config(app, lifespan="on", **options)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [free]}, daemon=True)
        thread.start()

        def stop() -> None:
            server.should_exit = True
            thread.join(30 if is_awaited else 5)
            assert not (is_awaited and thread.is_alive())

        try:
            while not server.started:
                assert thread.is_alive(), "the server did not start"
                time.sleep(0.01)
            yield Running(service, f"http://127.0.0.1:{free.getsockname()[1]}", stop)
        finally:
            stop()
