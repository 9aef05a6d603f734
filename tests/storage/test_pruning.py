"""Pruning: who has not been seen for long is deleted, and nobody else."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest
from stores import state, voiceprint

from voiceprint import InvalidArgumentError, MemoryStorage
from voiceprint.storage.pruning import parse_period, prune_callers

YEAR = timedelta(days=365)


@pytest.fixture
def storage():
    """Callers last seen now, and half, one and a half and four years ago."""
    today = datetime.now(timezone.utc)
    with MemoryStorage() as storage:
        storage.save(voiceprint("now"))
        for name, years in (("half", 0.5), ("old", 1.5), ("older", 4.0)):
            moment = (today - years * YEAR).isoformat()
            storage.save(voiceprint(name, 1, created_at=moment, last_seen=moment))
            storage.save(voiceprint(name, 2, created_at=moment, last_seen=moment))
        yield storage


def test_a_dry_run_names_them_and_changes_nothing(storage):
    before = state(storage)
    report = prune_callers(storage, YEAR)
    assert (report.caller_ids, report.voiceprints) == (("old", "older"), 4)
    assert state(storage) == before


def test_pruning_deletes_them_and_nobody_else(storage):
    looked_at: list[int] = []
    report = prune_callers(storage, 3 * YEAR, dry_run=False, progress=looked_at.append)
    assert (report.caller_ids, report.voiceprints) == (("older",), 2)
    assert set(state(storage)) == {"now", "half", "old"}
    assert looked_at == [1, 2, 3, 4]
    assert prune_callers(storage, 3 * YEAR, dry_run=False).caller_ids == ()


def test_a_caller_who_calls_while_it_runs_stays(storage):
    def old_one_calls(looked_at: int) -> None:
        if looked_at == 1:  # the page is read already, and holds the old time
            storage.touch("old")

    report = prune_callers(storage, YEAR, dry_run=False, progress=old_one_calls)
    assert report.caller_ids == ("older",)
    assert "old" in state(storage)


@pytest.mark.parametrize("period", [timedelta(0), -YEAR, 3, None, timedelta(days=999_999_999)])
def test_a_period_that_is_none_is_refused(storage, period):
    with pytest.raises(InvalidArgumentError):
        prune_callers(storage, period, dry_run=False)
    assert storage.count_callers() == 4


@pytest.mark.parametrize(
    ("text", "days"), [("90d", 90), ("12w", 84), ("18m", 540), ("3y", 1095), (" 3 Y ", 1095)]
)
def test_periods_are_days_weeks_months_and_years(text, days):
    assert parse_period(text) == timedelta(days=days)


@pytest.mark.parametrize("text", ["", "3", "y", "0d", "-3y", "3 years", "1.5y", "9999999y", "³y"])
def test_other_periods_are_refused(text):
    with pytest.raises(InvalidArgumentError):
        parse_period(text)
