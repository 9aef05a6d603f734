"""`Upkeep`: the life, the callers, the check and the index of a recognizer."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

from voiceprint._audited import audited, note, recording
from voiceprint._parts import Parts, check_attribute
from voiceprint.auditing import Auditing
from voiceprint.config import VoiceFingerprintConfig
from voiceprint.encoder import Encoder
from voiceprint.errors import InvalidArgumentError
from voiceprint.grouping import Grouping
from voiceprint.identification.gallery import Gallery
from voiceprint.identification.pipeline import Identifier
from voiceprint.identification.snapshots import OFF, IndexSettings
from voiceprint.identification.spaces import snapshot_statuses, space_coverage
from voiceprint.models import (
    Caller,
    CallerState,
    Consent,
    DeletionReceipt,
    Finding,
    SnapshotStatus,
    SpaceCoverage,
)
from voiceprint.privacy.audit.auditor import attach, flush
from voiceprint.retention import Expiry, state_of
from voiceprint.storage import Storage
from voiceprint.storage.base import DEFAULT_PAGE, Progress

if TYPE_CHECKING:
    from typing_extensions import Self

    from voiceprint.identification.left_out import LeftOutScores
    from voiceprint.index import IndexStatus


class Upkeep(Auditing, Grouping):
    """The methods of a recognizer that need no audio: its life, callers, the check, the index."""

    storage: Storage
    config: VoiceFingerprintConfig
    encoder: Encoder
    secondary: Encoder | None

    def __setattr__(self, name: str, value: object) -> None:
        check_attribute(name, value)
        super().__setattr__(name, value)
        if name in ("storage", "encoder", "secondary", "config"):
            self.__dict__.pop("_parts", None)  # which depend on it
        if name in ("storage", "config") and "storage" in self.__dict__:
            attach(self.storage, self.config)

    @property
    def _built(self) -> Parts:
        """The parts, built at the first use, and again after a change of an attribute."""
        settings = IndexSettings.of(self.config)
        parts: Parts | None = self.__dict__.get("_parts")
        if parts is None or parts.settings != settings:
            parts = Parts(self.storage, self.encoder, self.secondary, self.config, settings)
            self.__dict__["_parts"] = parts
        return parts

    @property
    def _identifier(self) -> Identifier:
        return self._built.identifier

    @property
    def _gallery(self) -> Gallery:
        return self._built.gallery

    # Life

    def warm_up(self, *, progress: Progress | None = None) -> None:
        """Load the encoder and the index now, so that the first caller does not wait for them.

        progress: called with the number of indexed voiceprints while the index is built.
        """
        self.encoder.warm_up()
        self._built.gallery.refresh(progress)
        if self.secondary is not None and self._built.dual_run is not None:
            self.secondary.warm_up()
            self._built.dual_run.gallery.refresh()

    def close(self) -> None:
        """Write the index's snapshot if much has changed, and close the store. May be called twice.

        An index in PostgreSQL is brought up to the store, for at most some seconds.

        Recognizers with other handles of the same store are not affected.
        """
        if IndexSettings.of(self.config).urls and not self.storage.is_closed:
            _ = (
                self._built
            )  # its close removes a vector from the servers, also for a command without a search
        parts: Parts | None = self.__dict__.pop("_parts", None)
        if parts is not None:
            parts.gallery.close()
            if parts.dual_run is not None:
                parts.dual_run.gallery.close()
        flush(self.storage)
        self.storage.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # Callers

    @audited("read", caller=True)
    def get_caller(self, caller_id: str) -> Caller | None:
        """The caller with metadata and voiceprints, or None."""
        return self.storage.get(caller_id)

    @audited("read")
    def callers(self) -> Iterator[Caller]:
        """All callers, in the order of their ids, read from the store a page at a time."""
        note(detail="all callers")
        return self.storage.iter_callers()

    @overload
    def delete_caller(self, caller_id: str, *, receipt: Literal[False] = False) -> int: ...

    @overload
    def delete_caller(self, caller_id: str, *, receipt: Literal[True]) -> DeletionReceipt: ...

    def delete_caller(self, caller_id: str, *, receipt: bool = False) -> int | DeletionReceipt:
        """Remove a caller with all voiceprints and metadata; return the number of voiceprints.

        receipt: wait until the disk has followed, search every file of the store for remains, and return a
        `DeletionReceipt`; raises `CallerNotFoundError` for an unknown caller.
        """
        if not receipt:
            return self.storage.delete(caller_id)
        from voiceprint.privacy.erasure import delete_with_receipt

        return delete_with_receipt(self.storage, caller_id)

    def delete_voiceprint(self, voiceprint_id: int) -> bool:
        """Remove one voiceprint; False for an unknown id. Its caller stays, also without another."""
        return self.storage.delete_voiceprint(voiceprint_id)

    def update_metadata(self, caller_id: str, metadata: dict[str, Any], *, replace: bool = False) -> Caller:
        """Merge `metadata` into the caller's, new keys winning, or `replace` it all; return the caller.

        Raises `CallerNotFoundError`, and `CallerOptedOutError`.
        """
        return self.storage.update_metadata(caller_id, metadata, replace=replace)

    def rename_caller(self, caller_id: str, new_id: str) -> Caller:
        """Give a caller another id; return the caller. The voiceprints get new ids, the times stay.

        Raises `CallerNotFoundError`, and `InvalidArgumentError` where there is a caller of the new id.
        """
        return self.storage.rename(caller_id, new_id)

    def merge_callers(self, source: str, into: str) -> tuple[Caller, list[int]]:
        """Make one caller of two who are the same person, such as enrolled twice under different ids.

        source: the caller who goes; voiceprints and data go to the caller `into`. Returns that caller, and
        the ids of the voiceprints that were removed: the oldest beyond `max_voiceprints_per_caller` of an
        encoder. Of a metadata key that both have, the value of `into` stays; groups are united; of two
        consents, the one that ends first stays. This cannot be undone.

        Raises `CallerNotFoundError`, `CallerOptedOutError`, and `InvalidArgumentError` for one caller twice,
        or a caller whose retention period has ended, as the other's calls would bring the voiceprints back.
        """
        expiry = Expiry(self.config.retention_period)
        for caller in self.storage.get_callers([source, into]).values():
            if expiry.reason_of(caller) == "retention":
                raise InvalidArgumentError(
                    f"The retention period of the caller {caller.caller_id!r} has ended: delete the caller "
                    "(`prune --expired`), or enroll the caller anew."
                )
        limit = self.config.max_voiceprints_per_caller
        return self.storage.merge(source, into, max_voiceprints=limit)

    @audited("read")
    def find_callers(
        self, metadata: Mapping[str, Any], *, after: str = "", limit: int = DEFAULT_PAGE
    ) -> list[Caller]:
        """The callers whose metadata has these values, in the order of their ids; at most `limit`.

        metadata: the value of each top-level key. Values are equal with their types: 1, 1.0, true and "1" are
        four. after: the last id of the page before. All callers are read, but in an SQL store with an index
        of the key (`voiceprint db index-metadata`). Raises `InvalidArgumentError` without a key.
        """
        note(detail="callers by metadata")
        return self.storage.find_callers(metadata, after=after, limit=limit)

    def caller_state(self, caller_id: str) -> CallerState | None:
        """The state of a caller, see `CallerState`; None for an id that the store does not have."""
        caller = self.storage.get(caller_id)
        return None if caller is None else state_of(caller, Expiry(self.config.retention_period))

    def set_consent(self, caller_id: str, consent: Consent) -> Caller:
        """Store a caller's consent in place of an earlier one; return the caller.

        Before the enrollment, this makes a caller without voiceprints. Raises `CallerOptedOutError`.
        """
        return self.storage.set_consent(caller_id, consent)

    @overload
    def opt_out(
        self,
        caller_id: str,
        *,
        reason: str | None = None,
        by: str | None = None,
        receipt: Literal[False] = False,
    ) -> int: ...

    @overload
    def opt_out(
        self, caller_id: str, *, reason: str | None = None, by: str | None = None, receipt: Literal[True]
    ) -> DeletionReceipt: ...

    def opt_out(
        self, caller_id: str, *, reason: str | None = None, by: str | None = None, receipt: bool = False
    ) -> int | DeletionReceipt:
        """Erase all voiceprints and data of a caller who refuses, and note the refusal; return the number of
        voiceprints.

        Nobody enrolls or matches this caller until `opt_in`; the id and the refusal stay. It need not be
        enrolled. reason, by: up to 512 characters, stored with the refusal. receipt: as in `delete_caller`.
        """
        if not receipt:
            return self.storage.opt_out(caller_id, reason=reason, by=by)
        from voiceprint.privacy.erasure import opt_out_with_receipt

        return opt_out_with_receipt(self.storage, caller_id, reason=reason, by=by)

    def opt_in(self, caller_id: str) -> Caller:
        """End the refusal of a caller, who can be enrolled again; return the caller, without voiceprints.

        Raises `CallerNotFoundError` for an id that the store does not have.
        """
        return self.storage.opt_in(caller_id)

    def spaces(self) -> list[SpaceCoverage]:
        """The embedding spaces of the store, by encoder, and the callers that each covers.

        The recognizer's own encoder comes first, and the secondary one next, also without voiceprints. All
        records are counted: some seconds a million.
        """
        return space_coverage(self.storage, self.encoder, self.secondary)

    def check(self, *, fix: bool = False) -> list[Finding]:
        """The faults of the store, and the differences of index and store; empty without any.

        fix: repair data that is derived from the records; no record is changed.
        """
        findings = self.storage.check(fix=fix)
        if any(finding.code == "corrupt" for finding in findings):
            return findings  # without valid records, no comparison with the index
        gallery = self._gallery
        differences = gallery.check()
        if differences and fix:
            gallery.rebuild()
            differences = gallery.check()
        return findings + differences

    def threshold_advice(self) -> str | None:
        """A sentence where the configured cosine threshold accepts many strangers; else None.

        Estimated from the similarity of the enrolled callers to each other; None also where a target decides,
        or with fewer than five callers. The first `identify` logs the same sentence, once.
        """
        return self._identifier.threshold_advice()

    def left_out_scores(self) -> LeftOutScores:
        """The scores of the enrolled callers, each left out in turn, as strangers and as known callers.

        Shows the FPIR and FNIR of thresholds in this gallery. A sample of 300 callers is read.
        """
        self._gallery.refresh()
        return self._gallery.left_out_scores(self.config.calibration_path)

    # The index, which needs no upkeep: to inspect or hurry it

    def index_status(self, *, progress: Progress | None = None) -> IndexStatus:
        """The state of the index."""
        return self._gallery.refresh(progress).status()

    def index_size(self) -> int:
        """The voiceprints in the index as it is, without the changes of the store since the last match."""
        return self._gallery.count_voiceprints()

    def index_lag(self) -> int | None:
        """The changes of the store that the index has not taken in yet; None before the index is built.

        The next match takes them in before it searches: a lag costs that match time, and makes no answer old.
        """
        return self._gallery.lag()

    def rebuild_index(self, *, progress: Progress | None = None) -> IndexStatus:
        """Build the index anew from the store, train it, and write its snapshot.

        Raises `ConfigurationError` where another file lies at `index_path`.
        """
        return self._gallery.rebuild(progress).status()

    def tune_index(self, recall: float | None = None) -> IndexStatus:
        """Measure the part of the index that a search needs to probe, and write the snapshot.

        recall: share of searches that find the most similar voiceprint, above 0, up to 1; None is
        `index_recall`. Valid until the index is next built or loaded.
        """
        return self._gallery.tune(recall).status()

    def export_index(self, path: str | os.PathLike[str]) -> IndexStatus:
        """Write the index, with every change of the store, to a file from which another machine starts.

        The file is a snapshot, encrypted if the store is, and holds biometric data: the deletion of a caller
        does not reach it. Raises `InvalidArgumentError` where it cannot be written, or is another file.
        """
        place = Path(path)
        with recording(self.storage.auditor, "export", file=place.name, detail="index") as operation:
            status = self._gallery.export_index(place).status()
            operation.note(count=status.vectors)
        return status

    def import_index(self, path: str | os.PathLike[str]) -> IndexStatus:
        """Start from an exported index in place of building one, apply the changes since, write the snapshot.

        Raises `InvalidArgumentError` for a file that is damaged, of another store or encoder, or older than
        the change feed; the index is then as before.
        """
        return self._gallery.import_index(Path(path)).status()

    def snapshots(self) -> list[SnapshotStatus]:
        """The index's snapshot of each embedding space of the store, the recognizer's own first.

        Reads the changes since each snapshot, and changes nothing.
        """
        in_memory = not IndexSettings.of(self.config).urls
        setting = self.config.index_path if in_memory else OFF
        return snapshot_statuses(self.storage, setting, self.encoder.name)

    def snapshot_path(self) -> Path | None:
        """The path of the index's snapshot; None without one."""
        return self._gallery.snapshot_path()
