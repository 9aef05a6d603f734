"""`VoiceprintWriter`: stores new voiceprints after a comparison with the caller's others."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from voiceprint.enrollment.agreement import same_recording, sounds_alike
from voiceprint.errors import InvalidArgumentError, VoiceMismatchError, VoiceprintError
from voiceprint.models import Voiceprint

if TYPE_CHECKING:
    from voiceprint.storage import Storage

logger = logging.getLogger(__name__)

OnMismatch = Literal["store", "refuse"]
"""For a new print that does not sound like its caller's others: store and warn, or raise an error."""

Stored = Voiceprint | VoiceprintError


class VoiceprintWriter:
    """Stores new voiceprints, and detects copies of a recording and voices of other people.

    limit: voiceprints a caller. A second voiceprint of a recording is not stored: the existing one is
    returned, with the metadata merged and `last_seen` moved. A voiceprint that does not sound like its
    caller's others is stored with a warning, or refused with `VoiceMismatchError`.

    No lock is held between reading and storing: two processes that enroll the same recording at the same
    moment may both store it.
    """

    def __init__(self, storage: Storage, limit: int, on_mismatch: OnMismatch) -> None:
        self._storage = storage
        self._limit = limit
        self._on_mismatch = on_mismatch

    def store(self, voiceprints: Sequence[Voiceprint]) -> list[Stored]:
        """Store voiceprints in order, in one change; return the stored or existing print or error of each."""
        results: list[Stored | None] = [None] * len(voiceprints)
        to_save: dict[int, Voiceprint] = {}  # by index in `results`
        try:
            by_caller = self._prints_of([new.caller_id for new in voiceprints])
        except VoiceprintError as error:  # the store cannot be read, and is not written to
            return [error] * len(voiceprints)

        def save() -> None:
            for place, result in zip(to_save, self._save([*to_save.values()]), strict=True):
                results[place] = result
            to_save.clear()
            by_caller.clear()

        for place, new in enumerate(voiceprints):
            try:
                copied, others = self._compared(new, by_caller)
                if copied is not None and copied.id is None:
                    save()  # `new` is a copy of one of these, which must be stored first
                    copied, others = self._compared(new, by_caller)
            except VoiceprintError as error:  # the store cannot be read, for any of the others either
                results[place:] = [error] * (len(results) - place)
                break
            if copied is not None:
                to_save[place] = _enrolled_again(copied, new)
                continue
            results[place] = self._mismatch(new, others)
            if results[place] is None:
                to_save[place] = new
                # As the store will replace the oldest.
                by_caller[new.caller_id] = [*by_caller[new.caller_id], new][-self._limit :]
        save()
        return [result for result in results if result is not None]

    def _prints_of(self, caller_ids: Sequence[str]) -> dict[str, list[Voiceprint]]:
        """The stored voiceprints of each of these callers."""
        found = self._storage.get_callers(caller_ids)
        return {name: [*found[name].voiceprints] if name in found else [] for name in caller_ids}

    def _compared(
        self, new: Voiceprint, by_caller: dict[str, list[Voiceprint]]
    ) -> tuple[Voiceprint | None, list[Voiceprint]]:
        """The voiceprint of the same recording, if there is one, and all that the new one is comparable with.

        by_caller: the voiceprints of callers who were read before, with those to be saved.
        """
        if new.caller_id not in by_caller:
            by_caller |= self._prints_of([new.caller_id])
        others = [one for one in by_caller[new.caller_id] if one.encoder == new.encoder]
        return same_recording(new.embedding, others), others

    def _mismatch(self, new: Voiceprint, others: list[Voiceprint]) -> VoiceMismatchError | None:
        if not others or sounds_alike(_embeddings(new), others):
            return None
        if self._on_mismatch == "refuse":
            return VoiceMismatchError(
                f"The audio does not sound like the voiceprints of the caller {new.caller_id!r}, and was not "
                "enrolled: check caller id and recording. If it is this caller, enroll with on_mismatch="
                "'store' (--on-mismatch store); if the others are not, delete the caller first."
            )
        logger.warning(
            "The new voiceprint of the caller %r does not sound like the caller's others: perhaps two people "
            "are enrolled under this id. If so, delete the caller and enroll anew; on_mismatch='refuse' "
            "(--on-mismatch refuse) stores no such voiceprint.",
            new.caller_id,
        )
        return None

    def _save(self, voiceprints: list[Voiceprint]) -> list[Stored]:
        """Save voiceprints in one change; return the stored print or error of each."""
        if not voiceprints:
            return []
        try:
            return [*self._storage.save_many(voiceprints, max_voiceprints=self._limit)]
        except InvalidArgumentError as error:
            # All were refused for one of them, such as a caller whose merged metadata is too large.
            if len(voiceprints) == 1:
                return [error]
            return [result for voiceprint in voiceprints for result in self._save([voiceprint])]
        except VoiceprintError as error:
            return [error] * len(voiceprints)


def _embeddings(voiceprint: Voiceprint) -> NDArray[np.float32]:
    """The embedding, and the augmented one where there is one: float32[n, d]."""
    vectors = (voiceprint.embedding, voiceprint.augmented)
    return np.stack([vector for vector in vectors if vector is not None])


def _enrolled_again(stored: Voiceprint, new: Voiceprint) -> Voiceprint:
    """The stored voiceprint, to be saved again: this merges the metadata and moves `last_seen`.

    An augmented embedding is added where there was none.
    """
    logger.info("The caller %r is already enrolled with this recording.", stored.caller_id)
    augmented = new.augmented if stored.augmented is None else stored.augmented
    return stored.model_copy(update={"metadata": new.metadata, "augmented": augmented, "last_seen": None})
