"""`VoiceprintWriter`: stores new voiceprints after a comparison with the caller's others."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from voiceprint._audited import current, record_results
from voiceprint.enrollment.agreement import same_recording, sounds_alike
from voiceprint.errors import (
    CallerNotFoundError,
    CallerOptedOutError,
    ConsentRequiredError,
    InvalidArgumentError,
    VoiceMismatchError,
    VoiceprintError,
)
from voiceprint.models import Caller, Voiceprint
from voiceprint.retention import Expiry
from voiceprint.storage.caller_changes import opted_out

if TYPE_CHECKING:
    from voiceprint.storage import Storage

logger = logging.getLogger(__name__)

OnMismatch = Literal["store", "refuse"]
"""The treatment of a new print that does not sound like its caller's others: storage and a warning, or an
error."""

Stored = Voiceprint | VoiceprintError


class VoiceprintWriter:
    """Stores new voiceprints, and detects copies of a recording and voices of other people.

    limit: voiceprints a caller in one embedding space; voiceprints of other spaces are not looked at. A
    second voiceprint of a recording is not stored: the existing one is returned, with the metadata merged and
    `last_seen` moved. A voiceprint that does not sound like its caller's others is stored with a warning, or
    refused with `VoiceMismatchError`.

    enrolled_only: refuse callers who are not enrolled, with `CallerNotFoundError`, and leave the `last_seen`
    of the others: these recordings are no contact with the caller. A caller who is deleted meanwhile is not
    created again.

    require_consent: see `Storage.save`. retention: the longest time since a caller was last seen; the
    voiceprints of one who is expired so are deleted before a new one is stored.

    No lock is held between reading and storing: two processes that enroll the same recording at the same
    moment may both store it.
    """

    def __init__(
        self,
        storage: Storage,
        limit: int,
        on_mismatch: OnMismatch,
        *,
        enrolled_only: bool = False,
        require_consent: bool = False,
        retention: timedelta | None = None,
    ) -> None:
        self._storage = storage
        self._limit = limit
        self._on_mismatch = on_mismatch
        self._enrolled_only = enrolled_only
        self._require_consent = require_consent
        self._retention = retention
        self._callers: dict[str, Caller | None] = {}  # as they were last read

    def store(self, voiceprints: Sequence[Voiceprint]) -> list[Stored]:
        """Store voiceprints in order, in one change; return the stored or existing print or error of each."""
        results = self._store(voiceprints)
        if voiceprints and current("enroll") is None:  # else it is part of the operation of one caller
            pairs = zip([new.caller_id for new in voiceprints], results, strict=True)
            record_results(self._storage.auditor, "enroll", pairs, encoder=voiceprints[0].encoder)
        return results

    def _store(self, voiceprints: Sequence[Voiceprint]) -> list[Stored]:
        results: list[Stored | None] = [None] * len(voiceprints)
        to_save: dict[int, Voiceprint] = {}  # by index in `results`
        compared: dict[tuple[str, str], list[Voiceprint]] = {}
        try:
            self._read([new.caller_id for new in voiceprints])
        except VoiceprintError as error:  # the store cannot be read, and is not written to
            return [error] * len(voiceprints)

        def save() -> None:
            for place, result in zip(to_save, self._save([*to_save.values()]), strict=True):
                results[place] = result
            to_save.clear()
            compared.clear()
            self._callers.clear()

        for place, new in enumerate(voiceprints):
            try:
                copied, others = self._compared(new, compared)
                if copied is not None and copied.id is None:
                    save()  # `new` is a copy of one of these, which must be stored first
                    copied, others = self._compared(new, compared)
                caller = self._callers[new.caller_id]
                if caller is not None and caller.opt_out is not None:
                    # Here, so that the store need not refuse all of the batch and be asked again for each.
                    results[place] = opted_out(new.caller_id, caller.opt_out)
                    continue
                if self._enrolled_only:
                    if caller is None:
                        results[place] = _not_enrolled(new.caller_id)
                        continue
                    new = new.model_copy(update={"last_seen": caller.last_seen or caller.created_at})
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
                compared[new.caller_id, new.encoder] = [*others, new][-self._limit :]
        save()
        return [result for result in results if result is not None]

    def _read(self, caller_ids: Sequence[str]) -> None:
        found: dict[str, Caller | None] = {**self._storage.get_callers(caller_ids)}
        expiry = Expiry(self._retention)
        expired = [
            name for name, caller in found.items() if caller and expiry.reason_of(caller) == "retention"
        ]
        for name in expired:
            # Their period has ended. A later `last_seen` would bring these voiceprints back into use.
            if self._storage.delete(name, unless_seen_since=expiry.seen_limit):
                logger.info("The caller %r was expired: the earlier voiceprints were deleted.", name)
            found[name] = self._storage.get(name)
        self._callers.update((name, found.get(name)) for name in caller_ids)

    def _compared(
        self, new: Voiceprint, compared: dict[tuple[str, str], list[Voiceprint]]
    ) -> tuple[Voiceprint | None, list[Voiceprint]]:
        """The voiceprint of the same recording, if there is one, and all that the new one is comparable with.

        compared: by caller id and embedding space, the voiceprints that were read before, with those to be
        saved.
        """
        key = new.caller_id, new.encoder
        if key not in compared:
            if new.caller_id not in self._callers:
                self._read([new.caller_id])
            caller = self._callers[new.caller_id]
            stored = () if caller is None else caller.voiceprints
            compared[key] = [one for one in stored if one.encoder == new.encoder]
        others = compared[key]
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
            stored = self._storage.save_many(
                voiceprints, max_voiceprints=self._limit, require_consent=self._require_consent
            )
            return self._without_recreated(stored) if self._enrolled_only else [*stored]
        except (InvalidArgumentError, CallerOptedOutError, ConsentRequiredError) as error:
            # All were refused for one of them, such as a caller whose merged metadata is too large.
            if len(voiceprints) == 1:
                return [error]
            return [result for voiceprint in voiceprints for result in self._save([voiceprint])]
        except VoiceprintError as error:
            return [error] * len(voiceprints)

    def _without_recreated(self, stored: list[Voiceprint]) -> list[Stored]:
        """The stored voiceprints. A caller whom another process has just deleted is deleted again."""
        ids = {one.id for one in stored}
        recreated = set()
        for caller_id in {one.caller_id for one in stored}:
            caller, before = self._storage.get(caller_id), self._callers[caller_id]
            if (
                caller is not None
                and (before is None or caller.created_at != before.created_at)
                and ids.issuperset(one.id for one in caller.voiceprints)
            ):
                self._storage.delete(caller_id)
                recreated.add(caller_id)
        return [_not_enrolled(one.caller_id) if one.caller_id in recreated else one for one in stored]


def _not_enrolled(caller_id: str) -> CallerNotFoundError:
    return CallerNotFoundError(f"The caller {caller_id!r} is not enrolled: enroll the caller first.")


def _embeddings(voiceprint: Voiceprint) -> NDArray[np.float32]:
    """The embedding, and the augmented one where there is one: float32[n, d]."""
    vectors = (voiceprint.embedding, voiceprint.augmented)
    return np.stack([vector for vector in vectors if vector is not None])


def _enrolled_again(stored: Voiceprint, new: Voiceprint) -> Voiceprint:
    """The stored voiceprint, to be saved again: this merges the metadata and moves `last_seen`.

    An augmented embedding and a provenance are added where there was none.
    """
    logger.info("The caller %r is already enrolled with this recording.", stored.caller_id)
    augmented = new.augmented if stored.augmented is None else stored.augmented
    return stored.model_copy(
        update={
            "metadata": new.metadata,
            "augmented": augmented,
            "last_seen": new.last_seen,
            "consent": new.consent,
            "groups": new.groups,
            "provenance": new.provenance if stored.provenance is None else stored.provenance,
        }
    )
