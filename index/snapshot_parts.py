"""The cells of an index, and how to search them, as parts of a snapshot."""

from __future__ import annotations

import logging
import math
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from voiceprint.index.cells import Cells
from voiceprint.index.training import Aim, Approximation
from voiceprint.index.tuning import Tuning

if TYPE_CHECKING:
    from voiceprint.index.snapshot import SnapshotReader

logger = logging.getLogger(__name__)

_MOST = 2**31  # of cells and candidates; faiss counts the cells of a search in 32 bits


def approximation_to(
    approximation: Approximation | None,
) -> tuple[dict[str, NDArray[Any]], dict[str, Any] | None]:
    """For a snapshot: the arrays, and the entries of its table."""
    if approximation is None:
        return {}, None
    projection, cells = approximation.cells.to_bytes()
    entries = {"tuning": asdict(approximation.tuning), "aim": asdict(approximation.aim)}
    return {"projection": projection, "cells": cells}, entries


def approximation_from(reader: SnapshotReader, count: int) -> Approximation | None:
    """What `approximation_to` gave; None if there was none, or this version of faiss cannot read it."""
    entries = reader.table["approximation"]
    if entries is None:
        return None
    tuning, aim = _tuning(**entries["tuning"]), _aim(**entries["aim"])
    projection, raw = reader.part("projection", "<f4"), reader.part("cells", "|u1")
    try:
        cells = Cells.from_bytes(projection, raw, count)
    except RuntimeError as error:  # faiss's
        logger.warning("The snapshot's cells cannot be read, and are made anew (%s).", type(error).__name__)
        return None
    if cells.dimension != reader.table["dimension"]:
        raise ValueError("cells of another dimension")
    return Approximation(cells, tuning, aim)


def _tuning(most_probes: Any, reach: Any, depth: Any, probes: Any, recall: Any) -> Tuning:
    if not (_count(most_probes) and _count(depth) and _number(reach) > 0.0):
        raise ValueError("a tuning with which nothing can be searched")
    if not (0.0 <= _number(probes) < math.inf and 0.0 <= _number(recall) <= 1.0):
        raise ValueError("a tuning that was never measured")
    return Tuning(most_probes, reach, depth, probes, recall)


def _aim(recall: Any, probes: Any, depth: Any) -> Aim:
    given = [value for value in (probes, depth) if value is not None]
    if not 0.0 < _number(recall) <= 1.0 or not all(_count(value) for value in given):
        raise ValueError("an aim that cannot be")
    return Aim(recall, probes, depth)


def _count(value: Any) -> bool:
    return type(value) is int and 1 <= value <= _MOST


def _number(value: Any) -> float:
    """NaN, which no comparison holds for, where it is none."""
    return float(value) if type(value) in (int, float) else math.nan
