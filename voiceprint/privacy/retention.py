"""The purge of expired callers, and the schedule of the coming ones."""

from __future__ import annotations

from collections import Counter
from datetime import datetime, timedelta, timezone

from voiceprint._model import Frozen
from voiceprint.models import Caller, DeletionReceipt
from voiceprint.privacy.erasure import expire_with_receipt
from voiceprint.retention import Expiry, ExpiryReason
from voiceprint.storage import Storage
from voiceprint.storage.base import Progress
from voiceprint.validation import format_time

__all__ = ["ExpiredCaller", "PurgeReport", "RetentionSchedule", "purge_expired", "retention_schedule"]


class ExpiredCaller(Frozen):
    """A caller whose time has ended. reason: the consent has ended, or the retention period.

    receipt: of the deletion, where receipts were asked for.
    """

    caller_id: str
    reason: ExpiryReason
    voiceprints: int
    receipt: DeletionReceipt | None = None


class PurgeReport(Frozen):
    """The expired callers who were deleted, or would be. at: the moment, ISO 8601 UTC with a `Z`."""

    at: str
    callers: tuple[ExpiredCaller, ...]

    @property
    def voiceprints(self) -> int:
        """Number of their voiceprints."""
        return sum(caller.voiceprints for caller in self.callers)

    @property
    def complete(self) -> bool:
        """True where all receipts are free of remains."""
        return all(caller.receipt is None or caller.receipt.complete for caller in self.callers)


class RetentionSchedule(Frozen):
    """The numbers of callers of a store that have expired, and that expire in each coming month.

    period: the retention period as in `VOICE_RETENTION`; None without one. at: the moment of counting.
    expired: number of callers who are expired, by reason. months: number of callers who expire in each coming
    month, "2027-03", if they do not call and renew no consent. never: callers without an end.
    opted_out: callers who refused, whose refusal has no end.
    """

    period: str | None
    at: str
    callers: int
    expired: dict[ExpiryReason, int]
    months: dict[str, int]
    never: int
    opted_out: int


def purge_expired(
    storage: Storage,
    period: timedelta | None,
    *,
    dry_run: bool = True,
    receipts: bool = False,
    progress: Progress | None = None,
) -> PurgeReport:
    """Delete the expired callers.

    period: the longest time since a caller was last seen; None for the ends of consents alone. dry_run: only
    report; the default, as a deletion cannot be undone. receipts: search every file of the store for remains
    of each caller, which takes the time of reading the store for each. A caller who calls or agrees again
    meanwhile stays. progress: called with the number of callers read.
    """
    expiry = Expiry(period)
    purged: list[ExpiredCaller] = []
    with storage.removing_many():
        for done, caller in enumerate(storage.iter_callers(), start=1):
            reason = expiry.reason_of(caller)
            if reason is not None:
                purged += _purge(storage, caller, expiry, dry_run=dry_run, receipts=receipts)
            if progress is not None:
                progress(done)
    return PurgeReport(at=expiry.at, callers=tuple(purged))


def _purge(
    storage: Storage, caller: Caller, expiry: Expiry, *, dry_run: bool, receipts: bool
) -> list[ExpiredCaller]:
    """The purged caller; none where the caller is gone or was renewed meanwhile."""
    receipt = None
    if receipts and not dry_run:
        receipt = expire_with_receipt(storage, caller, expiry)
        if receipt is None:
            return []
    elif not dry_run:
        storage.delete_expired(caller.caller_id, expiry)
        if storage.get(caller.caller_id) is not None:
            return []
    reason = expiry.reason_of(caller)
    assert reason is not None  # noqa: S101  the caller is expired
    return [
        ExpiredCaller(
            caller_id=caller.caller_id,
            reason=reason,
            voiceprints=len(caller.voiceprints),
            receipt=receipt,
        )
    ]


def retention_schedule(
    storage: Storage, period: str | None, length: timedelta | None, *, progress: Progress | None = None
) -> RetentionSchedule:
    """Count the callers by the month in which they expire.

    period, length: the retention period as text and as a timedelta. progress: called with the number of
    callers read.
    """
    expiry = Expiry(length)
    expired, months = Counter[ExpiryReason](), Counter[str]()
    callers = never = opted_out = 0
    for caller in storage.iter_callers():
        callers += 1
        reason = expiry.reason_of(caller)
        end = _end(caller, length)
        if caller.opt_out is not None:
            opted_out += 1
        elif reason is not None:
            expired[reason] += 1
        elif end is None:
            never += 1
        else:
            months[end[:7]] += 1
        if progress is not None:
            progress(callers)
    return RetentionSchedule(
        period=period,
        at=expiry.at,
        callers=callers,
        expired=dict(sorted(expired.items())),
        months=dict(sorted(months.items())),
        never=never,
        opted_out=opted_out,
    )


def _end(caller: Caller, period: timedelta | None) -> str | None:
    """The time when the caller expires, without another call; None for no end."""
    ends = [] if caller.consent is None else [caller.consent.expires_at]
    seen = caller.last_seen or caller.created_at
    if period is not None and seen is not None:
        moment = datetime.fromisoformat(seen.replace("Z", "+00:00"))
        latest = datetime.max.replace(tzinfo=timezone.utc)
        ends.append(format_time(moment + period) if latest - moment > period else None)
    return min((end for end in ends if end is not None), default=None)
