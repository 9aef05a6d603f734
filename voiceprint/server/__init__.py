"""The service: callers and identification over HTTP, live calls, and a console. docs/server.md explains it.

Needs the extra `server`. `voiceprint serve` starts it; `create_app` builds the application for another ASGI
server.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from voiceprint.server.app import create_app
    from voiceprint.server.service import Service
    from voiceprint.server.settings import ServerSettings

__all__ = ["ServerSettings", "Service", "create_app"]

_MODULES = {"ServerSettings": "settings", "Service": "service", "create_app": "app"}


def __getattr__(name: str) -> Any:
    # FastAPI and its models take 0.5 s to import, which `voiceprint serve --help` must not wait for.
    if name in _MODULES:
        from importlib import import_module

        return getattr(import_module(f"voiceprint.server.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
