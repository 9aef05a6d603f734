"""Deletes callers who have not called for a long time, as data protection law requires."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone

from voiceprint.errors import InvalidArgumentError
from voiceprint.storage.base import Progress, Storage
from voiceprint.validation import format_time

__all__ = ["PruneReport", "parse_period", "prune_callers"]

_UNITS = {"d": timedelta(days=1), "w": timedelta(weeks=1), "m": timedelta(days=30), "y": timedelta(days=365)}


@dataclass(frozen=True)
class PruneReport:
    """The callers who were pruned, or would be. not_seen_since: the limit for `last_seen`."""

    not_seen_since: str
    caller_ids: tuple[str, ...]
    voiceprints: int


def prune_callers(
    storage: Storage, not_seen_for: timedelta, *, dry_run: bool = True, progress: Progress | None = None
) -> PruneReport:
    """Delete the callers whose `last_seen` is longer ago than `not_seen_for`.

    dry_run: only report them; the default, as a deletion cannot be undone. A caller who calls meanwhile
    stays. `created_at` stands in for a missing `last_seen`; with neither, the caller stays. `progress` is
    called with the number of callers read.
    """
    if not isinstance(not_seen_for, timedelta) or not_seen_for <= timedelta(0):
        raise InvalidArgumentError(f"The period is {not_seen_for!r}: a timedelta above zero is allowed.")
    try:
        limit = format_time(datetime.now(timezone.utc) - not_seen_for)
    except OverflowError as error:
        raise InvalidArgumentError(f"The period {not_seen_for} reaches before the year 1.") from error
    pruned: list[str] = []
    voiceprints = 0
    with storage.removing_many():
        for done, caller in enumerate(storage.iter_callers(), start=1):
            seen = caller.last_seen or caller.created_at
            if seen is not None and seen < limit:
                removed = len(caller.voiceprints)
                if not dry_run:
                    removed = storage.delete(caller.caller_id, unless_seen_since=limit)
                if dry_run or removed or storage.get(caller.caller_id) is None:
                    pruned.append(caller.caller_id)
                    voiceprints += removed
            if progress is not None:
                progress(done)
    return PruneReport(limit, tuple(pruned), voiceprints)


def parse_period(text: str) -> timedelta:
    """ "90d", "12w", "18m" or "3y" as a timedelta; a month is 30 days, a year 365."""
    match = re.fullmatch(r"(\d{1,6})\s*([dwmy])", text.strip().lower())
    if match is None or int(match[1]) == 0:
        raise InvalidArgumentError(
            f"The period {text[:20]!r} is not a number of days, weeks, months or years: 90d, 12w, 18m, 3y."
        )
    try:
        return int(match[1]) * _UNITS[match[2]]
    except OverflowError as error:
        raise InvalidArgumentError(f"The period {text[:20]!r} is too long.") from error
