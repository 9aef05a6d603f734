"""The audit log in files: its chain, rotation, several writers, and crashes."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from voiceprint.errors import AuditError, InvalidArgumentError
from voiceprint.privacy.audit import Event, Head, Line, verify_lines
from voiceprint.privacy.audit.chain import ChainReport
from voiceprint.privacy.audit.event import new_event_id
from voiceprint.privacy.audit.files import AuditFile, rotated_files
from voiceprint.privacy.audit.writer import CAPACITY, AuditWriter
from voiceprint.validation import now


def events(count: int, **facts: object) -> list[Event]:
    return [Event(new_event_id(), now(), "match", caller=f"caller {n}", **facts) for n in range(count)]  # type: ignore[arg-type]


def log_at(path: Path, rotate_bytes: int = 1 << 30) -> AuditFile:
    return AuditFile(path, fsync=False, rotate_bytes=rotate_bytes)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A log of nine lines."""
    path = tmp_path / "audit.jsonl"
    log = log_at(path)
    for event in events(9):
        log.append([event])
    log.close()
    return path


def verified(path: Path, *anchors: Head) -> ChainReport:
    return verify_lines(log_at(path).lines(), anchors)


def faults(path: Path, *anchors: Head) -> list[tuple[str, int, int]]:
    return [fault[:3] for fault in verified(path, *anchors).faults]


def rewritten(path: Path, lines: list[bytes]) -> None:
    path.write_bytes(b"".join(line + b"\n" for line in lines))


def lines_of(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines()


def test_an_untouched_log_has_no_fault(path: Path) -> None:
    report = verified(path)
    assert (report.lines, report.first, report.faults, report.cut_by_crash) == (9, 1, (), ())
    assert report.head == log_at(path).head()
    assert path.stat().st_mode & 0o777 == 0o600


def test_an_event_survives_its_line(path: Path) -> None:
    event = Event(
        new_event_id(), now(), "verify", caller="\u2028 \"é'", llr=-1.5, reasons=("a", "b"), correct=False
    )
    log = log_at(path)
    log.append([event])
    line = Line.parse(next(log.backward()))
    assert line is not None
    assert line.event == event


@pytest.mark.parametrize("number", [1, 5, 9])
def test_a_changed_line_is_named(path: Path, number: int) -> None:
    lines = lines_of(path)
    lines[number - 1] = lines[number - 1].replace(b"caller ", b"calleR ")
    rewritten(path, lines)
    assert faults(path) == [("changed", number, number)]


@pytest.mark.parametrize("number", [2, 5, 8])
def test_a_missing_line_is_named(path: Path, number: int) -> None:
    lines = lines_of(path)
    del lines[number - 1]
    rewritten(path, lines)
    assert faults(path) == [("missing", number, number)]


def test_missing_first_lines_are_named(path: Path) -> None:
    rewritten(path, lines_of(path)[3:])
    assert faults(path) == [("missing", 1, 3)]


def test_two_swapped_lines_are_named(path: Path) -> None:
    lines = lines_of(path)
    lines[3], lines[4] = lines[4], lines[3]
    rewritten(path, lines)
    assert faults(path) == [("moved", 4, 4)]


def test_a_repeated_line_is_named(path: Path) -> None:
    lines = lines_of(path)
    rewritten(path, [*lines[:4], *lines[2:]])
    assert {fault[:2] for fault in faults(path)} == {("repeated", 3), ("repeated", 4)}


def test_a_changed_line_with_a_new_digest_is_found_by_the_next_one(path: Path) -> None:
    from voiceprint.privacy.audit.chain import chained

    lines = lines_of(path)
    before = Line.parse(lines[3])
    assert before is not None
    lines[4] = chained(events(1)[0], before.head)[0].rstrip()
    rewritten(path, lines)
    assert faults(path) == [("broken_link", 5, 6)]


def test_a_cut_end_is_found_by_an_anchor_alone(path: Path) -> None:
    head = log_at(path).head()
    rewritten(path, lines_of(path)[:7])
    assert faults(path) == []
    assert faults(path, head) == [("cut", 8, 9)]


def test_a_log_that_was_written_anew_is_found_by_an_anchor(path: Path) -> None:
    head = log_at(path).head()
    path.unlink()
    log = log_at(path)
    log.append(events(12))
    assert faults(path) == []
    assert faults(path, head) == [("other_history", 9, 9)]
    assert verified(path, log.head()).anchors == 1


def test_an_anchor_proves_the_beginning_of_a_log_whose_first_lines_are_archived(path: Path) -> None:
    third = Line.parse(lines_of(path)[2])
    assert third is not None
    rewritten(path, lines_of(path)[3:])
    assert faults(path, third.head) == []


def test_a_bad_anchor_is_refused() -> None:
    assert Head.parse(str(Head(7, "a" * 64))) == Head(7, "a" * 64)
    with pytest.raises(InvalidArgumentError, match="'7:abc'"):
        Head.parse("7:abc")


# Rotation


def test_the_chain_goes_on_over_rotated_files(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    log = log_at(path, rotate_bytes=2_000)
    for event in events(30):
        log.append([event])
    rotated = rotated_files(path)
    assert len(rotated) > 2
    report = verified(path)
    assert report.faults == ()
    assert report.lines == 30 + len(rotated)  # a line for each rotation
    assert [Line.parse(text).seq for text in log.backward()] == [*range(report.lines, 0, -1)]  # type: ignore[union-attr]


def test_a_missing_rotated_file_is_named_by_its_lines(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    log = log_at(path, rotate_bytes=2_000)
    for event in events(30):
        log.append([event])
    first, second, third = rotated_files(path)[:3]
    second.unlink()
    start, stop = int(second.name[-12:]), int(third.name[-12:])
    assert faults(path) == [("missing", start, stop - 1)]
    first.unlink()
    assert faults(path) == [("missing", 1, stop - 1)]


def test_a_crash_between_rotation_and_the_next_line_does_not_begin_a_new_chain(path: Path) -> None:
    path.rename(path.with_name("audit.jsonl.000000000001"))
    assert verified(path).lines == 9
    log_at(path).append(events(1))
    assert verified(path).faults == ()
    assert verified(path).head.seq == 11


def test_a_writer_goes_on_where_another_process_has_rotated(path: Path) -> None:
    log, other = log_at(path), log_at(path, rotate_bytes=100)
    log.append(events(1))
    other.append(events(1))
    log.append(events(1))
    assert len(rotated_files(path)) == 1
    assert verified(path).faults == ()


def test_a_file_of_another_log_is_not_replaced_by_a_rotation(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    other = path.with_name("audit.jsonl.000000000001")
    other.write_bytes(b'{"seq":1}\n')
    log = log_at(path, rotate_bytes=100)
    log.append(events(2))
    assert other.read_bytes() == b'{"seq":1}\n'
    assert "cannot be rotated" in caplog.text
    assert len(lines_of(path)) == 11


@pytest.fixture
def append_only(path: Path) -> Iterator[Path]:
    """The log with the attribute "append only", which the file system must support."""
    if subprocess.run(["chattr", "+a", path], capture_output=True, check=False).returncode:
        pytest.skip("needs root and a file system with attributes")
    yield path
    subprocess.run(["chattr", "-a", path], check=True)


def test_an_append_only_file_is_written_and_not_rotated(append_only: Path) -> None:
    log = log_at(append_only, rotate_bytes=100)
    log.append(events(1))
    log.append(events(1))
    assert rotated_files(append_only) == []
    assert verified(append_only).lines == 11


# Crashes


def test_an_append_that_does_not_fit_leaves_the_log_as_it_was(path: Path) -> None:
    before = path.read_bytes()
    child = os.fork()
    if not child:
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 300, len(before) + 300))
        try:
            log_at(path).append(events(3))
        except OSError:
            os._exit(0)
        os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
    assert path.read_bytes() == before


@pytest.mark.parametrize("kept", [1, 7, 20, 200])
def test_a_line_that_a_crash_cut_stays_and_is_named(path: Path, kept: int) -> None:
    whole = path.read_bytes()
    last = whole.splitlines(keepends=True)[-1]
    path.write_bytes(whole + last[:kept])
    assert len(verified(path).cut_by_crash) == 1, "before the next writer too"
    log_at(path).append(events(2))
    report = verified(path)
    assert report.faults == ()
    assert report.cut_by_crash == ("audit.jsonl, line 10",)
    assert report.head.seq == 12  # with the line that names the remains
    assert whole + last[:kept] + b"\n" == path.read_bytes()[: len(whole) + kept + 1]


def test_a_last_line_without_its_line_break_is_whole(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])
    log_at(path).append(events(1))
    report = verified(path)
    assert (report.lines, report.faults, report.cut_by_crash) == (10, (), ())


def test_zeros_of_a_power_failure_are_named_as_a_crash(path: Path) -> None:
    path.write_bytes(path.read_bytes() + bytes(4096))
    log_at(path).append(events(1))
    report = verified(path)
    assert report.faults == ()
    assert len(report.cut_by_crash) == 1


def test_a_first_line_that_a_crash_cut_is_named(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    path.write_bytes(b'{"seq":1,"pre')
    log_at(path).append(events(1))
    assert verified(path).faults == ()
    assert verified(path).head.seq == 2


def test_a_changed_last_line_does_not_pass_for_a_crash(path: Path) -> None:
    lines = lines_of(path)
    lines[8] = lines[8].replace(b"caller 8", b"caller X")
    rewritten(path, lines)
    log_at(path).append(events(1))
    assert faults(path) == [("changed", 9, 9)]


@pytest.mark.parametrize(
    "end",
    [
        b"garbage\n",
        b"garbage\n" * 4,
        b"garbage\ngarbage",
        b"\n",
        b'{"seq":6,"prev":"\n',
        b'{"seq":6,"prev":"\n{"seq":7',
    ],
)
def test_destroyed_last_lines_do_not_pass_for_a_crash(path: Path, end: bytes) -> None:
    whole = b"".join(line + b"\n" for line in lines_of(path)[:5])
    path.write_bytes(whole + end)
    report = verified(path)
    assert report.cut_by_crash == ()
    assert {(fault.code, fault.first) for fault in report.faults} >= {("changed", 6)}
    log_at(path).append(events(2))
    report = verified(path)
    assert report.cut_by_crash == (), "the mark of the next writer is no excuse"
    assert {fault[:2] for fault in report.faults} == {("changed", 6)}


def test_a_line_that_a_crash_cut_before_a_rotation_is_no_fault(path: Path) -> None:
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"seq":10,"pre')
    log_at(path, rotate_bytes=1).append(events(1))
    report = verified(path)
    assert (report.lines, report.faults) == (11, ()), "with the line that names the rotation"
    assert report.cut_by_crash == ("audit.jsonl.000000000001, line 10",)
    rotated = rotated_files(path)[0]
    rotated.write_bytes(b"".join(whole.splitlines(keepends=True)[:8]) + b'{"seq":9,"pre')
    assert faults(path) == [("missing", 9, 9)], "the lines after it show that a whole line was there"


def test_a_log_that_is_cut_under_a_running_writer_shows_a_gap(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    log = log_at(path)
    log.append(events(1))
    rewritten(path, lines_of(path)[:6])
    log.append(events(1))
    assert faults(path) == [("missing", 7, 10)]
    assert "was cut or replaced" in caplog.text


def test_a_removed_log_of_a_running_writer_shows_a_gap(path: Path) -> None:
    log = log_at(path)
    log.append(events(1))
    path.unlink()
    log.append(events(1))
    assert faults(path) == [("missing", 1, 10)]


WRITE = """
import sys
from pathlib import Path
from voiceprint.privacy.audit.event import Event, new_event_id
from voiceprint.privacy.audit.files import AuditFile
from voiceprint.privacy.audit.writer import AuditWriter
from voiceprint.validation import now

log = AuditFile(Path(sys.argv[1]), fsync=False, rotate_bytes=20_000)
count, wait = int(sys.argv[2]), sys.argv[3] == "wait"
writer = AuditWriter(log.append, log.place, wait=wait)
for n in range(count):
    writer.put(Event(new_event_id(), now(), "match", actor=sys.argv[4], caller=str(n)))
    if wait:
        print(n, flush=True)
"""


def writing(path: Path, count: int, mode: str, actor: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", WRITE, str(path), str(count), mode, actor]
    return subprocess.Popen(command, stdout=subprocess.PIPE)


def test_two_processes_write_one_chain_and_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    with writing(path, 400, "thread", "a") as one, writing(path, 400, "thread", "b") as other:
        assert [one.wait(60), other.wait(60)] == [0, 0]
    assert verified(path).faults == ()
    found = [Line.parse(text) for _, text in log_at(path).lines()]
    for actor in "ab":
        callers = [line.fields["caller"] for line in found if line and line.fields.get("actor") == actor]
        assert callers == [str(n) for n in range(400)]


def test_what_an_operation_waited_for_survives_kill_9(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    for run in range(3):
        with writing(path, 100_000, "wait", f"run {run}") as process:
            assert process.stdout is not None
            for _ in range(50 + 37 * run):
                done = process.stdout.readline()
            process.send_signal(signal.SIGKILL)
            done = [done, *process.stdout.read().splitlines()][-1]
        found = [Line.parse(text) for _, text in log_at(path).lines()]
        ours = {line.fields["caller"] for line in found if line and line.fields.get("actor") == f"run {run}"}
        assert {str(n) for n in range(int(done) + 1)} <= ours
    assert verified(path).faults == ()


# The writer


class Disk:
    """A place that can be full."""

    def __init__(self) -> None:
        self.full = threading.Event()
        self.written: list[Event] = []

    def append(self, found: list[Event]) -> None:
        if self.full.is_set():
            raise OSError(28, "No space left on device")
        self.written += found


def test_a_full_disk_loses_no_event_and_is_reported(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("voiceprint.privacy.audit.writer._RETRY_S", 0.01)
    disk = Disk()
    disk.full.set()
    writer = AuditWriter(disk.append, "log")
    given = events(5)
    for event in given:
        writer.put(event)
    assert not writer.flush()
    assert writer.unwritten == 5
    assert "No space left" in caplog.text
    disk.full.clear()
    while writer.unwritten:
        time.sleep(0.01)
    assert disk.written == given


def test_events_without_room_are_counted_in_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("voiceprint.privacy.audit.writer._RETRY_S", 0.01)
    monkeypatch.setattr("voiceprint.privacy.audit.writer.PATIENCE_S", 0.0)
    disk = Disk()
    disk.full.set()
    writer = AuditWriter(disk.append, "log")
    given = events(CAPACITY + 3)
    for event in given:
        writer.put(event)
    assert writer.unwritten == CAPACITY + 3
    disk.full.clear()
    while writer.unwritten:
        time.sleep(0.01)
    assert disk.written[:CAPACITY] == given[:CAPACITY]
    (gap,) = disk.written[CAPACITY:]
    assert (gap.action, gap.count) == ("log_gap", 3)


def test_with_wait_an_operation_fails_without_its_line() -> None:
    disk = Disk()
    writer = AuditWriter(disk.append, "log", wait=True)
    writer.put(events(1)[0])
    assert len(disk.written) == 1
    disk.full.set()
    with pytest.raises(AuditError, match="No space left"):
        writer.put(events(1)[0])
    disk.full.clear()


def test_the_thread_ends_when_idle_and_starts_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("voiceprint.privacy.audit.writer._IDLE_S", 0.01)
    disk = Disk()
    writer = AuditWriter(disk.append, "log")
    for n in range(3):
        writer.put(events(1)[0])
        assert writer.flush()
        while writer._thread is not None:
            time.sleep(0.01)
        assert len(disk.written) == n + 1


def test_a_forked_child_writes_its_own_events_alone(path: Path) -> None:
    log = log_at(path)
    writer = AuditWriter(log.append, log.place, reset=log.reset)
    writer.put(events(1)[0])
    child = os.fork()
    if not child:
        for event in events(20):
            writer.put(event)
        os._exit(0 if writer.flush() else 1)
    for event in events(20):
        writer.put(event)
    assert writer.flush()
    assert os.waitpid(child, 0)[1] == 0
    report = verified(path)
    assert (report.lines, report.faults) == (9 + 1 + 20 + 20, ())


def test_a_file_that_is_no_log_is_never_written_to(tmp_path: Path) -> None:
    path = tmp_path / "voiceprints.db"
    path.write_bytes(b"SQLite format 3\0")
    with pytest.raises(OSError, match="not an audit log"):
        log_at(path).append(events(1))
    assert path.read_bytes() == b"SQLite format 3\0"
    with pytest.raises(OSError, match="a directory"):
        list(log_at(tmp_path).lines())
