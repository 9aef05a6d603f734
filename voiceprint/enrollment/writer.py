"""`VoiceprintWriter`: stores new voiceprints beside those that their callers have."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from voiceprint.enrollment.agreement import same_recording, sounds_alike
from voiceprint.errors import InvalidArgumentError, VoiceMismatchError, VoiceprintError
from voiceprint.models import Voiceprint
from voiceprint.validation import shown

if TYPE_CHECKING:
    from voiceprint.storage import Storage

logger = logging.getLogger(__name__)

OnMismatch = Literal["store", "refuse"]
"""How to treat a new print that does not sound like its caller's others: store it and warn, or refuse it."""

Stored = Voiceprint | VoiceprintError


class VoiceprintWriter:
    """Stores new prints, and notices copies of a recording and voices of other people.

    limit: voiceprints a caller. A new print of a recording that its caller has a print of is not stored: the
    existing print is returned, with the metadata merged and `last_seen` moved. A new print that does not
    sound like its caller's others is stored with a warning, or refused with `VoiceMismatchError`.

    The caller's prints are read, then the new ones stored, without a lock: two processes that enroll the same
    recording at the same moment may both store it.
    """

    def __init__(self, storage: Storage, limit: int, on_mismatch: OnMismatch) -> None:
        if on_mismatch not in get_args(OnMismatch):
            raise InvalidArgumentError(
                f"on_mismatch is {shown(on_mismatch)}: {' or '.join(get_args(OnMismatch))} is allowed."
            )
        self._storage = storage
        self._limit = limit
        self._on_mismatch = on_mismatch

    def store(self, voiceprints: Sequence[Voiceprint]) -> list[Stored]:
        """Store them in order, in one change; for each the stored or existing print, or the error."""
        results: list[Stored | None] = [None] * len(voiceprints)
        wanted: dict[int, Voiceprint] = {}  # by place in `results`
        known: dict[str, list[Voiceprint]] = {}

        def save() -> None:
            for place, result in zip(wanted, self._save([*wanted.values()]), strict=True):
                results[place] = result
            wanted.clear()
            known.clear()

        for place, new in enumerate(voiceprints):
            try:
                copied, others = self._compared(new, known)
                if copied is not None and copied.id is None:
                    save()  # `new` is a copy of one of these, which has to be stored first
                    copied, others = self._compared(new, known)
            except VoiceprintError as error:  # of the store, which cannot be read: no need to try again
                results[place:] = [error] * (len(results) - place)
                break
            if copied is not None:
                wanted[place] = _seen_again(copied, new)
                continue
            results[place] = self._mismatch(new, others)
            if results[place] is None:
                wanted[place] = new
                known[new.caller_id] = [*known[new.caller_id], new][-self._limit :]  # as the store will
        save()
        return [result for result in results if result is not None]

    def _compared(
        self, new: Voiceprint, known: dict[str, list[Voiceprint]]
    ) -> tuple[Voiceprint | None, list[Voiceprint]]:
        """The print of the same recording, if there is one, and all that the new one can be compared with.

        known: the prints of callers who were read before, with those that are to be stored.
        """
        if new.caller_id not in known:
            caller = self._storage.get(new.caller_id)
            known[new.caller_id] = [] if caller is None else [*caller.voiceprints]
        others = [one for one in known[new.caller_id] if one.encoder == new.encoder]
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
        """Save them in one change; where that fails, give the error in the place of each that it hit."""
        if not voiceprints:
            return []
        try:
            return [*self._storage.save_many(voiceprints, max_voiceprints=self._limit)]
        except InvalidArgumentError as error:
            # One of them, such as a caller whose metadata became too large, and all were refused.
            if len(voiceprints) == 1:
                return [error]
            return [result for voiceprint in voiceprints for result in self._save([voiceprint])]
        except VoiceprintError as error:
            return [error] * len(voiceprints)


def _embeddings(voiceprint: Voiceprint) -> NDArray[np.float32]:
    """The embedding, and that for simulated lines where there is one: float32[n, d]."""
    vectors = (voiceprint.embedding, voiceprint.augmented)
    return np.stack([vector for vector in vectors if vector is not None])


def _seen_again(stored: Voiceprint, new: Voiceprint) -> Voiceprint:
    """The stored print, to be saved in its own place: this merges the metadata and moves `last_seen`.

    A print for simulated lines is added where there was none.
    """
    logger.info("The caller %r is already enrolled with this recording.", stored.caller_id)
    augmented = new.augmented if stored.augmented is None else stored.augmented
    return stored.model_copy(update={"metadata": new.metadata, "augmented": augmented, "last_seen": None})
