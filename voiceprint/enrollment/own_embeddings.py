"""Enrollment of many embeddings that an application computed, in blocks."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from voiceprint._model import construct
from voiceprint.errors import (
    CallerOptedOutError,
    ConsentRequiredError,
    InvalidArgumentError,
    VoiceprintError,
)
from voiceprint.models import Voiceprint
from voiceprint.validation import UNIT_TOLERANCE, check_caller_id, check_metadata, unit_vector

if TYPE_CHECKING:
    from voiceprint.enrollment.writer import VoiceprintWriter
    from voiceprint.storage.base import Progress

_NAMED_ROWS: Final = 10  # refused rows that an error lists: as many as a line shows

ROWS_TOGETHER: Final = 5_000
"""Rows in one change of the store: some 20 MB of memory at 256 values. Twice as many need twice the memory;
half as many have a store that writes all of its records with every change write them twice as often."""


class EmbeddingRows:
    """The rows of a bulk enrollment, all of them checked.

    caller_ids: n ids. embeddings: numbers [n, d] of any lengths above 0, also memory-mapped. metadata: a JSON
    object or None for each row; None for no metadata. dimension: d.

    Raises `InvalidArgumentError`, which names the first bad row, counted from 0.
    """

    def __init__(
        self,
        caller_ids: Iterable[str],
        embeddings: ArrayLike,
        metadata: Iterable[dict[str, Any] | None] | None,
        dimension: int,
    ) -> None:
        self._embeddings = _matrix(embeddings, dimension)
        self._caller_ids = self._one_a_row("caller_ids", caller_ids)
        self._metadata = None if metadata is None else self._one_a_row("metadata", metadata)
        _check_each(self._caller_ids, check_caller_id)
        _check_each(self._metadata or [], check_metadata)
        for start in range(0, len(self), ROWS_TOGETHER):
            _unit_rows(self._embeddings[start : start + ROWS_TOGETHER], start)
        # In the order of the ids, and of one id in that of the rows: a database then fills its indexes from
        # one end. A million random ids take three times as long in the order of the rows.
        self._order = np.argsort(np.array(self._caller_ids, dtype=object), kind="stable")

    def __len__(self) -> int:
        return len(self._embeddings)

    def _one_a_row(self, name: str, items: Iterable[Any]) -> Sequence[Any]:
        if isinstance(items, str | bytes | dict) or not isinstance(items, Iterable):
            raise InvalidArgumentError(
                f"{name} is of type {type(items).__name__}: give a list, one item a row."
            )
        listed = items if isinstance(items, list | tuple) else list(items)
        if len(listed) != len(self):
            raise InvalidArgumentError(
                f"{name} has {len(listed):,} items, and embeddings has {len(self):,} rows: give one a row."
            )
        return listed

    def blocks(self) -> Iterator[NDArray[np.int64]]:
        """The rows of each block, int64[m], in the order in which they are to be stored."""
        for start in range(0, len(self), ROWS_TOGETHER):
            yield self._order[start : start + ROWS_TOGETHER]

    def voiceprints(self, rows: NDArray[np.int64], encoder: str) -> list[Voiceprint]:
        """The voiceprints of some rows. encoder: name of their space."""
        vectors = _unit_rows(self._embeddings[rows])
        vectors.flags.writeable = False
        # Without pydantic's checks, which all values have passed already: they take as long as the store.
        return [
            construct(
                Voiceprint,
                {
                    "caller_id": check_caller_id(self._caller_ids[row]),
                    "encoder": encoder,
                    "embedding": vector,
                    "augmented": None,
                    "metadata": check_metadata(self._metadata[row] if self._metadata else None),
                    "created_at": None,
                    "last_seen": None,
                    "id": None,
                    "revision": None,
                    "consent": None,
                    "groups": (),
                    "provenance": None,
                },
            )
            for row, vector in zip(rows.tolist(), vectors, strict=True)
        ]


def _unit_rows(given: NDArray[Any], first: int = 0) -> NDArray[np.float32]:
    """Rows scaled to length 1, a new float32[m, d]; those of length 1 unchanged. first: number of the first.

    Raises `InvalidArgumentError` for a row that has no direction.
    """
    with np.errstate(over="ignore", invalid="ignore"):  # such rows are not of length 1
        rows = np.array(given, dtype=np.float32)
        squares = np.einsum("ij,ij->i", rows, rows)
    others = np.flatnonzero(~(np.abs(squares - 1.0) <= 2 * UNIT_TOLERANCE))  # NaN among them
    if not len(others):
        return rows
    with np.errstate(invalid="ignore"):  # for a signaling NaN, as in damaged files
        wide = given[others].astype(np.float64)
    peaks = np.abs(wide).max(axis=1)
    bad = np.flatnonzero(~np.isfinite(peaks) | (peaks == 0.0))
    if len(bad):
        row = int(others[bad[0]])
        _check_each([given[row]], unit_vector, first=first + row)
    wide /= peaks[:, None]  # first, because squares of huge values overflow
    rows[others] = wide / np.linalg.norm(wide, axis=1, keepdims=True)
    return rows


def enroll_rows(
    rows: EmbeddingRows, encoder: str, writer: VoiceprintWriter, progress: Progress | None
) -> NDArray[np.int64]:
    """Store all rows, a block in one change; return the ids of their voiceprints, int64[n].

    progress: called with the number of finished rows. Raises the first error of the store. Rows of callers
    who have opted out or not agreed do not stop the others: once these are stored, an error names such rows.
    """
    ids = np.empty(len(rows), dtype=np.int64)
    refused: dict[int, VoiceprintError] = {}
    done = 0
    for block in rows.blocks():
        with _without_cycle_search():
            for row, stored in zip(
                block.tolist(), writer.store(rows.voiceprints(block, encoder)), strict=True
            ):
                if isinstance(stored, CallerOptedOutError | ConsentRequiredError):
                    refused[row] = stored
                elif isinstance(stored, VoiceprintError):
                    raise stored
                else:
                    assert stored.id is not None  # noqa: S101  every stored voiceprint has one
                    ids[row] = stored.id
        done += len(block)
        if progress is not None:
            progress(done)
    if refused:
        raise _of_refused(refused)
    return ids


def _of_refused(refused: dict[int, VoiceprintError]) -> VoiceprintError:
    """The error that names all refused rows, of the class of the first."""
    first = min(refused)
    named = ", ".join(f"{row:,}" for row in sorted(refused)[:_NAMED_ROWS])
    others = f" and {len(refused) - _NAMED_ROWS:,} more" if len(refused) > _NAMED_ROWS else ""
    return type(refused[first])(
        f"Rows {named}{others} were refused, and all others are stored: leave these out. Row {first:,}: "
        f"{refused[first]}"
    )


@contextmanager
def _without_cycle_search() -> Iterator[None]:
    """Let Python not search for reference cycles meanwhile, in any thread: for the 0.2 s of a block.

    The many objects of a block, all without cycles, would have Python search all objects of the process over
    and over, a third of the time of an enrollment.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _matrix(embeddings: ArrayLike, dimension: int) -> NDArray[Any]:
    if isinstance(embeddings, np.ma.MaskedArray):
        raise InvalidArgumentError("embeddings is a masked array, which may lack values: give an array.")
    try:
        matrix = np.asarray(embeddings)
    except (TypeError, ValueError):  # rows of different lengths; numpy's message may quote values
        matrix = np.empty(0, dtype=object)
    if matrix.dtype.kind not in "fiu":
        raise InvalidArgumentError(
            f"embeddings is a {type(embeddings).__name__} of {matrix.dtype}: numbers [n, {dimension}] are "
            "allowed, one row an embedding."
        )
    if matrix.ndim != 2 or matrix.shape[1] != dimension:
        raise InvalidArgumentError(
            f"embeddings has the shape {matrix.shape}: [n, {dimension}] is allowed, one row an embedding of "
            "this encoder."
        )
    return matrix


def _check_each(items: Iterable[Any], check: Callable[[Any], object], *, first: int = 0) -> None:
    for row, item in enumerate(items, start=first):
        try:
            check(item)
        except InvalidArgumentError as error:
            raise InvalidArgumentError(f"Row {row:,}: {error} Nothing was stored.") from error
