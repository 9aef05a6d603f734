"""Matching: which of the enrolled callers an embedding sounds like, among all or among some."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from voiceprint.errors import CallerNotFoundError, InvalidArgumentError, StorageUnavailableError
from voiceprint.gallery import Gallery, rank
from voiceprint.models import Caller, Match, Voiceprint
from voiceprint.validation import check_caller_id, shown

if TYPE_CHECKING:
    from voiceprint.storage import Storage

logger = logging.getLogger(__name__)


class Matcher:
    """Compares embeddings of one space with the voiceprints of a store.

    space: name of the encoder. gallery: asked for at each search, as after a fork it is another.
    """

    def __init__(self, storage: Storage, space: str, gallery: Callable[[], Gallery]) -> None:
        self._storage = storage
        self._space = space
        self._gallery = gallery

    def nearest(
        self, probe: NDArray[np.float32], k: int, threshold: float, callers: list[Caller] | None
    ) -> list[Match]:
        """The k nearest of these callers, of all if None; accepted are those from `threshold` on."""
        if callers is None:
            ranked = self._gallery().best(self._storage, probe, k)
        else:
            ranked = rank(probe, [print_ for caller in callers for print_ in self._prints(caller)])[:k]
        return [
            Match(
                caller_id=scored.voiceprint.caller_id,
                similarity=scored.similarity,
                metadata=scored.voiceprint.metadata,
                voiceprint_id=cast(int, scored.voiceprint.id),  # every stored print has one
                accepted=scored.similarity >= threshold,
            )
            for scored in ranked
        ]

    def enrolled(self, caller_ids: Iterable[str]) -> list[Caller]:
        """Those of the callers who are."""
        found = (self._storage.get(caller_id) for caller_id in caller_ids)
        return [caller for caller in found if caller is not None]

    def prints(self, caller_id: str) -> list[Voiceprint]:
        """The caller's voiceprints in this space; `CallerNotFoundError` where there are none."""
        caller = self._storage.get(caller_id)
        prints = self._prints(caller) if caller is not None else []
        if not prints:
            what = "enrolled" if caller is None else f"enrolled with the encoder {self._space!r}"
            raise CallerNotFoundError(f"The caller {caller_id!r} is not {what}: enrol the caller first.")
        return prints

    def touch(self, caller_id: str) -> None:
        """Move the `last_seen` of a caller who was matched."""
        try:
            self._storage.touch(caller_id)
        except StorageUnavailableError as error:
            # The call has its answer; a store that can be read but not written must not take it away.
            logger.warning("last_seen of a matched caller could not be stored: %s", error)

    def _prints(self, caller: Caller) -> list[Voiceprint]:
        # Embeddings of different encoders are never compared.
        return [print_ for print_ in caller.voiceprints if print_.encoder == self._space]


def check_count(k: Any) -> int:
    """How many callers are wanted."""
    if isinstance(k, bool) or not isinstance(k, int | np.integer) or k < 1:
        raise InvalidArgumentError(f"k is {shown(k)}: a whole number from 1 is allowed.")
    return int(k)


def check_threshold(threshold: Any) -> float:
    """The similarity from which a match is accepted."""
    if (
        isinstance(threshold, bool)
        or not isinstance(threshold, int | float | np.number)
        or not 0 <= threshold <= 1
    ):
        raise InvalidArgumentError(f"The threshold is {shown(threshold)}: a number from 0 to 1 is allowed.")
    return float(threshold)


def check_candidates(candidates: Any) -> list[str]:
    """The caller ids to search among, each once."""
    if isinstance(candidates, str) or not isinstance(candidates, Iterable):
        raise InvalidArgumentError(
            f"candidates is one {type(candidates).__name__}: give a list of caller ids."
        )
    return [*dict.fromkeys(check_caller_id(caller_id) for caller_id in candidates)]
