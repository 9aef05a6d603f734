"""Inverted lists of 4-bit codes, edited in place: faiss packs them for searching, and only ever appends."""

from __future__ import annotations

from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

_BLOCK = 32  # codes that faiss interleaves


class Lists:
    """The rows and codes of each cell of an `IndexIVFPQFastScan`, which searches them.

    A code is uint8[code_size], two dimensions a byte, the lower half first. Not locked.
    """

    def __init__(self, ivf: Any) -> None:
        self._ivf = ivf
        self._lists = faiss.downcast_InvertedLists(ivf.invlists)
        self._packer = self._lists.packer
        self.code_size = int(self._packer.code_size)
        self.total = int(ivf.ntotal)
        self._layout = _layout(self._packer)

    def __len__(self) -> int:
        return self.total

    def tell_total(self) -> None:
        """Let faiss know how many codes there are, which it need not to search: asking it takes long."""
        self._ivf.ntotal = self.total

    def rows(self, cell: int) -> NDArray[np.int64]:
        """int64[n], a view that is valid until the cell changes."""
        size = self._lists.list_size(cell)
        if not size:
            return np.empty(0, dtype=np.int64)
        rows: NDArray[np.int64] = faiss.rev_swig_ptr(self._lists.get_ids(cell), size)
        return rows

    def append(self, cell: int, rows: NDArray[np.int64], codes: NDArray[np.uint8]) -> None:
        """Put rows at the end of a cell."""
        start, count = self._lists.list_size(cell), len(rows)
        self._lists.resize(cell, start + count)
        self.rows(cell)[start:] = rows
        blocks = self._blocks(cell)
        begun = min(-start % _BLOCK, count)  # what fits in the last block
        for n in range(begun):
            self._put_code(codes[n], blocks, start + n)
        if begun < count:
            blocks[-(-start // _BLOCK) :] = self._packed(codes[begun:])
        self.total += count

    def _code(self, blocks: NDArray[np.uint8], place: int) -> NDArray[np.uint8]:
        # Of one block: faiss's Python wrapper refuses places that are far from the start.
        block, within = divmod(place, _BLOCK)
        code: NDArray[np.uint8] = self._packer.unpack_1(blocks[block : block + 1], within)
        return code

    def _put_code(self, code: NDArray[np.uint8], blocks: NDArray[np.uint8], place: int) -> None:
        block, within = divmod(place, _BLOCK)
        self._packer.pack_1(code, within, blocks[block : block + 1])

    def _packed(self, codes: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Whole blocks of codes, uint8[blocks, bytes a block]."""
        padded = np.zeros((-(-len(codes) // _BLOCK) * _BLOCK, self._packer.code_size), dtype=np.uint8)
        padded[: len(codes)] = codes
        halves = np.stack([padded & 15, padded >> 4], axis=2).reshape(len(padded) // _BLOCK, -1)
        in_order = halves[:, self._layout].reshape(len(halves), -1, 2)
        packed: NDArray[np.uint8] = in_order[:, :, 0] | in_order[:, :, 1] << 4
        return packed

    def remove(self, cell: int, row: int) -> None:
        """Take a row out of a cell that holds it; the last one takes its place."""
        rows, blocks = self.rows(cell), self._blocks(cell)
        place, last = int(np.flatnonzero(rows == row)[0]), len(rows) - 1
        if place != last:
            self._put_code(self._code(blocks, last), blocks, place)
            rows[place] = rows[last]
        # What is removed is to be gone: memory, and a snapshot, would hold it otherwise.
        self._put_code(np.zeros(self.code_size, dtype=np.uint8), blocks, last)
        rows[last] = 0
        self._lists.resize(cell, last)
        self.total -= 1

    def rename(self, cell: int, row: int, new: int) -> None:
        """Give a row of a cell another number."""
        rows = self.rows(cell)
        rows[np.flatnonzero(rows == row)[0]] = new

    def _blocks(self, cell: int) -> NDArray[np.uint8]:
        """The packed codes of a cell that is not empty, uint8[blocks, bytes a block], a view."""
        size = -(-self._lists.list_size(cell) // _BLOCK) * self._packer.block_size
        codes: NDArray[np.uint8] = faiss.rev_swig_ptr(self._lists.get_codes(cell), size)
        return codes.reshape(-1, self._packer.block_size)


def _layout(packer: Any) -> NDArray[np.int64]:
    """For each half byte of a block, which half byte of its codes is there: int64[2 * block_size].

    Asked of faiss, a half byte at a time: the order is its own affair.
    """
    layout = np.zeros(2 * packer.block_size, dtype=np.int64)
    block = np.zeros((1, packer.block_size), dtype=np.uint8)
    code = np.zeros(packer.code_size, dtype=np.uint8)
    for place in range(_BLOCK):
        for half in range(2 * packer.code_size):
            code[half // 2] = 15 << 4 * (half % 2)
            packer.pack_1(code, place, block)
            byte = int(block[0].nonzero()[0][0])
            layout[2 * byte + int(block[0, byte] == 0xF0)] = place * 2 * packer.code_size + half
            code[half // 2] = block[0, byte] = 0
    return layout
