"""Searches whole files for the plain data of many callers at once.

The search looks up every eight bytes of a file, at every place, in a table of 2**22 bits that those of the
wanted pieces have set, and compares only what the table lets through. A piece more costs nothing, so a
gigabyte takes some 20 s for one caller or for 20,000.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from voiceprint.models import Caller
from voiceprint.privacy.erasure import pieces_of
from voiceprint.storage import Storage

__all__ = ["Search"]

_BLOCK = 8 << 20  # bytes read at once
_HEAD = 8  # bytes of a piece that the table holds
_TABLE_BITS = 22  # with 140,000 pieces it lets 3 % of random bytes through
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)  # 2**64 by the golden ratio: spreads neighboring numbers


class Search:
    """The plain data of callers, to be searched for."""

    def __init__(self) -> None:
        self.callers = 0
        self._pieces: dict[bytes, set[bytes]] = {}
        self._longest = _HEAD

    def add(self, caller: Caller) -> None:
        """Search for this caller's embeddings and metadata, too."""
        self.callers += 1
        for piece in pieces_of(caller):
            if len(piece) >= _HEAD:
                self._pieces.setdefault(piece[:_HEAD], set()).add(piece)
                self._longest = max(self._longest, len(piece))

    def finds(self, storage: Storage, path: Path) -> bool:
        """Whether the file holds any of the pieces. A file that is gone holds nothing. Raises OSError."""
        table = self._table()
        with suppress(FileNotFoundError), storage.open_for_search(path) as file:
            start = 0
            while block := os.pread(file, _BLOCK + self._longest, start):
                if self._is_in(block, table):
                    return True
                start += _BLOCK
        return False

    def _table(self) -> NDArray[np.bool_]:
        table = np.zeros(1 << _TABLE_BITS, dtype=np.bool_)
        if self._pieces:
            table[_slots(np.frombuffer(b"".join(self._pieces), dtype="<u8"))] = True
        return table

    def _is_in(self, block: bytes, table: NDArray[np.bool_]) -> bool:
        for offset in range(_HEAD):
            numbers = np.frombuffer(block, dtype="<u8", offset=offset, count=(len(block) - offset) // _HEAD)
            for at in np.flatnonzero(table[_slots(numbers)]) * _HEAD + offset:
                wanted = self._pieces.get(block[at : at + _HEAD], ())
                if any(block.startswith(piece, int(at)) for piece in wanted):
                    return True
        return False


def _slots(numbers: NDArray[np.uint64]) -> NDArray[np.uint64]:
    slots: NDArray[np.uint64] = (numbers * _MULTIPLIER) >> np.uint64(64 - _TABLE_BITS)
    return slots
