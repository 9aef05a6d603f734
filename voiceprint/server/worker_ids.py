"""Ids of worker processes, by which another worker of the same machine sees that one has ended."""

from __future__ import annotations

import functools
import hashlib
import os
import secrets
from pathlib import Path
from typing import Final

_NOWHERE: Final = "0" * 8
"""The machine of a worker whose system has no /proc: its end shows by its signs of life alone."""


def new_worker_id() -> str:
    """An id of this process, up to 64 characters: machine, process, its start, random digits."""
    pid = os.getpid()
    return f"{_machine()}-{pid}-{_start(pid) or 0}-{secrets.token_hex(4)}"


def has_ended(worker_id: str | None) -> bool:
    """Whether the worker process has ended; False for a process of another machine or container."""
    machine, _, rest = (worker_id or "").partition("-")
    pid, _, rest = rest.partition("-")
    start, _, _ = rest.partition("-")
    if machine in ("", _NOWHERE) or machine != _machine() or not (pid.isdigit() and start.isdigit()):
        return False
    return _start(int(pid)) != int(start)


@functools.cache
def _machine() -> str:
    """A digest of what makes process ids unique: the running kernel and the namespace of the ids."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text()
        return hashlib.sha256(f"{boot} {Path('/proc/self/ns/pid').readlink()}".encode()).hexdigest()[:8]
    except OSError:  # another system than Linux
        return _NOWHERE


def _start(pid: int) -> int | None:
    """The start of a process, in ticks since that of the machine; None without such a process."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:  # it has ended, or the system has no /proc
        return None
    return None if fields[0] == "Z" else int(fields[19])
