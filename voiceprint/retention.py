"""The time that a store may hold a caller: until the consent ends, or the retention period."""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Final, Literal

from voiceprint.errors import InvalidArgumentError
from voiceprint.validation import check_time, format_time, now

if TYPE_CHECKING:
    from voiceprint.consent import CallerState, Consent
    from voiceprint.models import Caller
    from voiceprint.storage.records import CallerRecord

__all__ = ["Expiry", "ExpiryReason", "parse_period", "state_of"]

ExpiryReason = Literal["consent", "retention"]
"""The reason why a caller is expired: the consent has ended, or the retention period."""

_UNITS: Final = {
    "d": timedelta(days=1),
    "w": timedelta(weeks=1),
    "m": timedelta(days=30),
    "y": timedelta(days=365),
}


class Expiry:
    """Tells which callers are expired at a moment.

    period: the longest time since `last_seen`; None for no end. at: the moment, ISO 8601 UTC with a `Z`;
    default now. Raises `InvalidArgumentError` for a period of zero or less, or one that reaches before the
    year 1.
    """

    def __init__(self, period: timedelta | None = None, at: str | None = None) -> None:
        self.period = period
        self.at = check_time(at) or now()
        self.seen_limit: str | None = None
        if period is None:
            return
        if not isinstance(period, timedelta) or period <= timedelta(0):
            raise InvalidArgumentError(f"The period is {period!r}: a timedelta above zero is allowed.")
        try:
            moment = datetime.fromisoformat(self.at.replace("Z", "+00:00"))
            self.seen_limit = format_time(moment.astimezone(timezone.utc) - period)
        except OverflowError as error:
            raise InvalidArgumentError(f"The period {period} reaches before the year 1.") from error

    def covers(self, consent: Consent | None, seen: str | None) -> bool:
        """Whether a caller of this consent is expired; seen: when last seen, else when created."""
        return self.reason(consent, seen) is not None

    def reason(self, consent: Consent | None, seen: str | None) -> ExpiryReason | None:
        """The reason why a caller is expired; None for a caller who is not."""
        # The retention first: it asks for more, as a new consent does not bring these voiceprints back.
        if self.seen_limit is not None and seen is not None and seen < self.seen_limit:
            return "retention"
        if consent is not None and not consent.is_valid_at(self.at):
            return "consent"
        return None

    def covers_caller(self, caller: Caller | CallerRecord) -> bool:
        """Whether the caller is expired. A caller who has opted out never is: the refusal stays."""
        return self.reason_of(caller) is not None

    def reason_of(self, caller: Caller | CallerRecord) -> ExpiryReason | None:
        """As `reason`, of a caller."""
        if caller.opt_out is not None:
            return None
        return self.reason(caller.consent, caller.last_seen or caller.created_at)


def state_of(caller: Caller, expiry: Expiry) -> CallerState:
    """The state of a caller, see `CallerState`."""
    if caller.opt_out is not None:
        return "opted_out"
    if expiry.covers_caller(caller):
        return "expired"
    return "enrolled" if caller.voiceprints else "pending"


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
