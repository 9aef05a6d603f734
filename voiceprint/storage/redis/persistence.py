"""The files of a Redis server that hold removed records, and having the server write them anew."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

from voiceprint.errors import StorageUnavailableError
from voiceprint.storage.redis.client import Server
from voiceprint.validation import shown

__all__ = ["Kept", "kept_on_disk", "rewrite"]

_POLL_S = 0.05


class Kept(NamedTuple):
    """A file of the server, and whether removed records are still in it."""

    place: str
    state: Literal["erased", "kept_by_server"]
    detail: str


def kept_on_disk(server: Server, *, rewritten: bool) -> Iterator[Kept]:
    """The files of every node; rewritten: whether `rewrite` has just done its work."""
    for name, node in server.nodes():
        info = _info(server, node)
        if info.get("aof_enabled"):
            yield Kept(
                f"append-only file of {name}",
                "erased" if rewritten else "kept_by_server",
                "It was rewritten after the deletion."
                if rewritten
                else "The commands that stored the record stay in it until its next rewrite: by the server's "
                "auto-aof-rewrite-percentage, or by BGREWRITEAOF.",
            )
        saved = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(info.get("rdb_last_save_time", 0)))
        yield Kept(
            f"snapshot file (RDB) of {name}",
            "erased" if rewritten else "kept_by_server",
            f"It was last saved at {saved}, after the deletion."
            if rewritten
            else f"It was last saved at {saved}, and holds what was stored then until the next save: by the "
            "server's `save` setting, or by BGSAVE.",
        )


def rewrite(server: Server, timeout_s: float) -> None:
    """Have every node write its files anew from its memory, and wait for it.

    Raises `StorageUnavailableError` where that fails or takes longer.
    """
    deadline = time.monotonic() + timeout_s
    for name, node in server.nodes():
        info = _wait(server, node, name, deadline)
        if info.get("aof_enabled"):
            _ask(server, node, "BGREWRITEAOF")
            info = _wait(server, node, name, deadline)
            if info.get("aof_last_bgrewrite_status") != "ok":
                raise StorageUnavailableError(
                    f"{name} could not rewrite its append-only file: its log says why."
                )
        _ask(server, node, "BGSAVE")
        info = _wait(server, node, name, deadline)
        if info.get("rdb_last_bgsave_status") != "ok":
            raise StorageUnavailableError(f"{name} could not save its snapshot file: its log says why.")


def _wait(server: Server, node: Any, name: str, deadline: float) -> dict[str, Any]:
    """The server's report once it writes nothing in the background."""
    busy = "aof_rewrite_in_progress", "aof_rewrite_scheduled", "rdb_bgsave_in_progress"
    while True:
        info = _info(server, node)
        if not any(info.get(field) for field in busy):
            return info
        if time.monotonic() > deadline:
            raise StorageUnavailableError(f"{name} is still writing its files: try again later.")
        time.sleep(_POLL_S)


def _info(server: Server, node: Any) -> dict[str, Any]:
    with server.translated():
        answer = node.info("persistence")
    if not isinstance(answer, dict):
        raise StorageUnavailableError(f"The server answered INFO with {shown(answer)}.")
    return answer


def _ask(server: Server, node: Any, command: str) -> None:
    with server.translated():
        node.execute_command(command)
