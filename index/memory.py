"""Memory that was freed is given back to the system."""

from __future__ import annotations

import ctypes


def give_back_memory() -> None:
    """After much was needed for a while: glibc keeps what a thread has freed, 200 bytes a vector here."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # other C libraries have none, and need none
    if trim is not None:
        trim(0)
