"""Recognizers that answer through a service: the tests of the verbs run with both.

A test with `@over_http` runs three times: with a recognizer, with `Client` and with `AsyncClient` over a live
service of the same recognizer. Verbs go to the client, all else, such as `config`, to the recognizer.
"""

from __future__ import annotations

import asyncio
import inspect
import itertools
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from serving import Running, serve

from voiceprint import OpusAgentVoiceRecognizer
from voiceprint.client import AsyncClient, Client
from voiceprint.server import ServerSettings, Service

WAYS = ("library", "client", "async client")
Reached = Callable[[OpusAgentVoiceRecognizer], OpusAgentVoiceRecognizer]
over_http = pytest.mark.parametrize("way", WAYS, indirect=True)

VERBS = frozenset(
    name
    for name, member in vars(Client).items()
    if not name.startswith("_") and hasattr(OpusAgentVoiceRecognizer, name) and callable(member)
) - {"close"}


class OverHttp:
    """A recognizer whose verbs are called through a service."""

    def __init__(self, recognizer: OpusAgentVoiceRecognizer, call: Callable[..., Any]) -> None:
        """call: calls a verb: name, arguments, keyword arguments."""
        self.__dict__.update(_recognizer=recognizer, _call=call)

    def __getattr__(self, name: str) -> Any:
        if name in VERBS:
            return lambda *args, **kwargs: self._call(name, *args, **kwargs)
        return getattr(self._recognizer, name)

    def __setattr__(self, name: str, value: object) -> None:
        setattr(self._recognizer, name, value)


class Reach:
    """A service for the recognizers of the tests, and clients of it."""

    def __init__(self, running: Running, galleries: dict[str, OpusAgentVoiceRecognizer]) -> None:
        self._galleries = galleries
        self._names = itertools.count()
        key = running.key("admin", "audit")
        self._client = Client(running.url, key, embeddings=True)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._async_client = self._awaited(_made(running.url, key))

    def __call__(self, recognizer: OpusAgentVoiceRecognizer, way: str) -> Any:
        """The recognizer, to be used in this way."""
        gallery = f"test-{next(self._names)}"
        self._galleries[gallery] = recognizer
        if way == "client":
            client = self._client.with_gallery(gallery)
            return OverHttp(recognizer, lambda verb, *args, **kwargs: getattr(client, verb)(*args, **kwargs))
        async_client = self._async_client.with_gallery(gallery)

        def call(verb: str, *args: Any, **kwargs: Any) -> Any:
            answer = getattr(async_client, verb)(*args, **kwargs)
            return self._awaited(answer if inspect.isawaitable(answer) else _listed(answer))

        return OverHttp(recognizer, call)

    def _awaited(self, answer: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(answer, self._loop).result()

    def close(self) -> None:
        """End the clients."""
        self._client.close()
        self._awaited(self._async_client.aclose())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


async def _made(url: str, key: str) -> AsyncClient:
    return AsyncClient(url, key, embeddings=True)


async def _listed(answers: AsyncIterator[Any]) -> list[Any]:
    return [answer async for answer in answers]


@contextmanager
def reaching(folder: Path) -> Iterator[Reach]:
    """A service whose galleries are the recognizers that tests give it."""
    galleries: dict[str, OpusAgentVoiceRecognizer] = {}
    settings = ServerSettings(state=str(folder / "state.db"), rate_limit=0)
    # Not awaited: hundreds of stores are closed, some with audit logs in folders that are gone by then.
    with serve(Service(galleries, settings), is_awaited=False) as running:
        reach = Reach(running, galleries)
        try:
            yield reach
        finally:
            reach.close()
