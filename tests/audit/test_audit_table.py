"""The audit log as a table of an SQL store."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from databases import sql
from postgres_server import fresh_url
from voices import BandEncoder, by_cosine

from voiceprint import OpusAgentVoiceRecognizer, SQLiteStorage, Storage, open_storage
from voiceprint.privacy.audit import Head, Line, verify_lines
from voiceprint.privacy.audit.event import Event, new_event_id
from voiceprint.privacy.audit.table import AuditTable
from voiceprint.validation import now


def events(count: int) -> list[Event]:
    return [Event(new_event_id(), now(), "match", caller=f"caller {n}") for n in range(count)]


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Storage]:
    url = f"sqlite:{tmp_path / 'callers.db'}"
    if request.param == "postgresql":
        url = fresh_url()
    with open_storage(url) as storage:
        yield storage


def table_of(storage: Storage) -> AuditTable:
    table = storage.line_table()
    assert table is not None
    return AuditTable(table)


def test_two_handles_write_one_chain_of_many_pages(storage: Storage) -> None:
    one, two = table_of(storage), table_of(storage)
    for log in (one, two, one, two):
        log.append(events(600))
    report = verify_lines(one.lines(), [one.head()])
    assert (report.lines, report.faults, report.anchors) == (2_400, (), 1)
    numbers = [line.seq for line in map(Line.parse, one.backward()) if line is not None]
    assert numbers == [*range(2_400, 0, -1)]
    assert storage.count() == 0


def test_a_recognizer_writes_its_events_to_the_table(storage: Storage) -> None:
    config = by_cosine(audit="store")
    recognizer = OpusAgentVoiceRecognizer(storage, config=config, encoder=BandEncoder())
    recognizer.get_caller("amara")
    recognizer.delete_caller("amara")
    log = recognizer.audit_log()
    assert log is not None
    lines = [Line.parse(text) for _, text in log.lines()]
    assert [line and line.event.action for line in lines] == ["read", "delete"]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A database with nine lines."""
    with SQLiteStorage(tmp_path / "callers.db") as storage:
        table_of(storage).append(events(9))
    return tmp_path / "callers.db"


def faults(path: Path, *anchors: Head) -> list[tuple[str, int, int]]:
    with SQLiteStorage(path) as storage:
        return [fault[:3] for fault in verify_lines(table_of(storage).lines(), anchors).faults]


def test_a_changed_row_is_named(path: Path) -> None:
    sql(path, "UPDATE audit_log SET line = replace(line, 'caller 4', 'caller X') WHERE seq = 5")
    assert faults(path) == [("changed", 5, 5)]


def test_a_missing_row_is_named(path: Path) -> None:
    sql(path, "DELETE FROM audit_log WHERE seq IN (3, 4)")
    assert faults(path) == [("missing", 3, 4)]


def test_cut_rows_are_found_by_an_anchor_and_by_a_running_writer(path: Path) -> None:
    with SQLiteStorage(path) as storage:
        log = table_of(storage)
        log.append(events(1))
        anchor = log.head()
        sql(path, "DELETE FROM audit_log WHERE seq > 7")
        assert faults(path, anchor) == [("cut", 8, 10)]
        log.append(events(1))
    assert faults(path) == [("missing", 8, 10)]


def test_after_a_changed_last_row_the_fault_stays_visible(path: Path) -> None:
    sql(path, "UPDATE audit_log SET line = replace(line, 'caller 8', 'caller X') WHERE seq = 9")
    with SQLiteStorage(path) as storage:
        table_of(storage).append(events(1))
    assert faults(path) == [("changed", 9, 9)]


def test_a_destroyed_last_row_does_not_pass_for_a_crash(path: Path) -> None:
    sql(path, "UPDATE audit_log SET line = 'garbage' WHERE seq = 9")
    assert faults(path) == [("changed", 9, 9)]


def test_a_forked_child_writes_to_the_same_chain(path: Path) -> None:
    with SQLiteStorage(path) as storage:
        log = table_of(storage)
        log.append(events(1))
        child = os.fork()
        if not child:
            log.append(events(5))
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        log.append(events(1))
    with SQLiteStorage(path) as storage:
        assert verify_lines(table_of(storage).lines()).lines == 16
    assert faults(path) == []
