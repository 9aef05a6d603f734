"""The files of a Redis server that still hold removed records, and their rewriting by the server."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from voiceprint.errors import StorageUnavailableError
from voiceprint.models import ErasedPlace
from voiceprint.storage.redis.connection import RedisConnection
from voiceprint.validation import shown

__all__ = ["rewrite_files", "server_files"]

_POLL_S = 0.05


def server_files(connection: RedisConnection, *, rewritten: bool) -> Iterator[ErasedPlace]:
    """The files of every node; rewritten: whether `rewrite_files` has just rewritten them."""
    for name, node in connection.nodes():
        info = _info(connection, node)
        if info.get("aof_enabled"):
            yield ErasedPlace(
                place=f"append-only file of {name}",
                state="erased" if rewritten else "kept_by_server",
                detail="It was rewritten after the deletion."
                if rewritten
                else "The commands that stored the record stay in it until its next rewrite: by the server's "
                "auto-aof-rewrite-percentage, or by BGREWRITEAOF.",
            )
        saved = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(info.get("rdb_last_save_time", 0)))
        yield ErasedPlace(
            place=f"snapshot file (RDB) of {name}",
            state="erased" if rewritten else "kept_by_server",
            detail=f"It was last saved at {saved}, after the deletion."
            if rewritten
            else f"It was last saved at {saved}, and holds the records of then until the next save: by the "
            "server's `save` setting, or by BGSAVE.",
        )


def rewrite_files(connection: RedisConnection, timeout_s: float) -> None:
    """Have every node write its files anew from its memory, and wait for it.

    Raises `StorageUnavailableError` if that fails or takes longer than `timeout_s`.
    """
    deadline = time.monotonic() + timeout_s
    for name, node in connection.nodes():
        info = _wait(connection, node, name, deadline)
        if info.get("aof_enabled"):
            _ask(connection, node, "BGREWRITEAOF")
            info = _wait(connection, node, name, deadline)
            if info.get("aof_last_bgrewrite_status") != "ok":
                raise StorageUnavailableError(
                    f"{name} could not rewrite its append-only file: its log says why."
                )
        _ask(connection, node, "BGSAVE")
        info = _wait(connection, node, name, deadline)
        if info.get("rdb_last_bgsave_status") != "ok":
            raise StorageUnavailableError(f"{name} could not save its snapshot file: its log says why.")


def _wait(connection: RedisConnection, node: Any, name: str, deadline: float) -> dict[str, Any]:
    """The server's report, once it writes nothing in the background."""
    busy = "aof_rewrite_in_progress", "aof_rewrite_scheduled", "rdb_bgsave_in_progress"
    while True:
        info = _info(connection, node)
        if not any(info.get(field) for field in busy):
            return info
        if time.monotonic() > deadline:
            raise StorageUnavailableError(f"{name} is still writing its files: try again later.")
        time.sleep(_POLL_S)


def _info(connection: RedisConnection, node: Any) -> dict[str, Any]:
    with connection.translated():
        answer = node.info("persistence")
    if not isinstance(answer, dict):
        raise StorageUnavailableError(f"The server answered INFO with {shown(answer)}.")
    return answer


def _ask(connection: RedisConnection, node: Any, command: str) -> None:
    with connection.translated():
        node.execute_command(command)
