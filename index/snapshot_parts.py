"""The cells of an index, and how to search them, as parts of a snapshot."""

from __future__ import annotations

import logging
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from voiceprint.index.cells import Cells
from voiceprint.index.training import Aim, Approximation
from voiceprint.index.tuning import Tuning

if TYPE_CHECKING:
    from voiceprint.index.snapshot import SnapshotReader

logger = logging.getLogger(__name__)


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
    projection, raw = reader.part("projection", "<f4"), reader.part("cells", "|u1")
    try:
        cells = Cells.from_bytes(projection, raw)
    except RuntimeError as error:  # faiss's
        logger.warning("The snapshot's cells cannot be read, and are made anew (%s).", type(error).__name__)
        return None
    if cells.dimension != reader.table["dimension"]:
        raise ValueError("cells of another dimension")
    if not np.array_equal(np.sort(cells.rows()), np.arange(count)):
        raise ValueError("cells of other rows than the ones that there are")
    return Approximation(cells, Tuning(**entries["tuning"]), Aim(**entries["aim"]))
