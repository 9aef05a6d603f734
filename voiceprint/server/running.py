"""`run`: the service as processes, by uvicorn."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import uvicorn

from voiceprint.config import VoiceFingerprintConfig
from voiceprint.galleries import Galleries
from voiceprint.server.app import CONFIG_VARIABLE, GALLERIES_VARIABLE
from voiceprint.server.database import ServerDatabase
from voiceprint.server.keys import ApiKeys
from voiceprint.server.settings import PREFIX, ServerSettings


def run(
    given: dict[str, Any], config: str | None, galleries: list[str] | None, say: Callable[[str], None]
) -> None:
    """Serve until SIGINT or SIGTERM.

    given: settings in place of those of the environment. config: file of the galleries; None for the
    configured store. galleries: names to serve; None for all. say: takes lines for the person who started it.
    """
    settings = ServerSettings(**given)
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
    uvicorn.run(
        "voiceprint.server.app:application",
        factory=True,
        host=settings.host,
        port=settings.port,
        workers=settings.workers,
        ssl_certfile=settings.tls_certificate,
        ssl_keyfile=settings.tls_key,
        proxy_headers=settings.behind_proxy,
        forwarded_allow_ips="*" if settings.behind_proxy else None,
        server_header=False,
        access_log=False,  # paths hold ids of callers; /metrics counts, the audit log says who did what
        timeout_graceful_shutdown=int(settings.shutdown_s),
        h11_max_incomplete_event_size=64 * 1024,
        ws_max_size=1024 * 1024,
    )
