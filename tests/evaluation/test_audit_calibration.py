"""A calibration from the feedback in an audit log."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from voiceprint import ExternalEncoder, InvalidArgumentError
from voiceprint.evaluation.audit_calibration import LEAST_STRANGERS, calibrate_by_audit
from voiceprint.privacy.audit import Event
from voiceprint.privacy.audit.event import new_event_id
from voiceprint.privacy.audit.files import AuditFile
from voiceprint.validation import now

ENCODER = ExternalEncoder("resemblyzer", 256)
SHIFT, SPREAD = 0.8, 1.3
LIMIT = 1.5  # deviates from which the answers of these logs are accepted


def answer(deviate: float, caller: str = "amara", encoder: str = "resemblyzer") -> Event:
    verdict = "accepted" if deviate >= LIMIT else "rejected"
    return Event(
        new_event_id(), now(), "identify",
        caller=caller, verdict=verdict, deviate=deviate, encoder=encoder, gallery_size=50,
    )  # fmt: skip


def feedback(event: Event, *, correct: bool, caller: str | None = None) -> Event:
    return Event(new_event_id(), now(), "feedback", about=event.event_id, correct=correct, caller=caller)


def calls(strangers: int, callers: int, accepted: float, rejected: float) -> list[Event]:
    """Answers to calls, and feedback to a share of those that accept a caller, and of the others."""
    chance = np.random.default_rng(1)
    events: list[Event] = []
    for number in range(strangers + callers):
        is_stranger = number < strangers
        deviate = chance.normal(SHIFT, SPREAD) if is_stranger else chance.normal(5.0, 1.0)
        event = answer(deviate)
        events.append(event)
        was_accepted = event.verdict == "accepted"
        if chance.random() < (accepted if was_accepted else rejected):
            missed = "amara" if not is_stranger and not was_accepted else None
            events.append(feedback(event, correct=was_accepted != is_stranger, caller=missed))
    return events


@pytest.fixture
def log_of(tmp_path: Path) -> Callable[[list[Event]], AuditFile]:
    def log_of(events: list[Event]) -> AuditFile:
        log = AuditFile(tmp_path / "audit.jsonl", fsync=False, rotate_bytes=1 << 30)
        log.append(events)
        return log

    return log_of


def test_the_strangers_of_the_feedback_are_found_though_most_of_it_is_on_accepted_answers(
    log_of: Callable[[list[Event]], AuditFile],
) -> None:
    found = calibrate_by_audit(log_of(calls(3_000, 1_000, accepted=0.5, rejected=0.1)), ENCODER)
    assert found.answers == 4_000
    # Unweighted, the strangers of the feedback have a mean of 1.6.
    assert found.calibration.stranger_shift == pytest.approx(SHIFT, abs=0.2)
    assert found.calibration.stranger_spread == pytest.approx(SPREAD, abs=0.15)
    before, after = found.before[0], found.after[0]
    assert before.fpir > 0.08
    assert after.fpir == pytest.approx(0.01, abs=0.01)
    assert found.calibration.about["source"] == "audit"
    assert found.calibration.scale == pytest.approx(3.6)


def test_too_few_strangers_are_refused_with_the_number_that_is_needed(
    log_of: Callable[[list[Event]], AuditFile],
) -> None:
    events = calls(LEAST_STRANGERS - 1, 50, accepted=1.0, rejected=1.0)
    with pytest.raises(
        InvalidArgumentError, match="needs 30 confirmed strangers or more, and the log has 29"
    ):
        calibrate_by_audit(log_of(events), ENCODER)


def test_feedback_on_accepted_answers_alone_is_refused(log_of: Callable[[list[Event]], AuditFile]) -> None:
    with pytest.raises(InvalidArgumentError, match="0 of them have feedback: 10 are needed"):
        calibrate_by_audit(log_of(calls(500, 50, accepted=1.0, rejected=0.0)), ENCODER)


def test_other_encoders_and_the_early_decision_of_a_call_do_not_count(
    log_of: Callable[[list[Event]], AuditFile],
) -> None:
    events = calls(100, 20, accepted=1.0, rejected=1.0)
    other = answer(0.0, encoder="other")
    early = Event(
        new_event_id(), now(), "stream",
        verdict="accepted", deviate=3.0, encoder="resemblyzer", detail="decided early",
    )  # fmt: skip
    found = calibrate_by_audit(log_of([*events, other, feedback(other, correct=True), early]), ENCODER)
    assert (found.answers, found.strangers, found.callers, found.without_answer) == (120, 100, 20, 1)


def test_the_last_feedback_on_an_answer_counts_and_another_caller_is_no_stranger(
    log_of: Callable[[list[Event]], AuditFile],
) -> None:
    events = calls(100, 20, accepted=1.0, rejected=1.0)
    wrong = answer(4.0)
    found = calibrate_by_audit(
        log_of(
            [*events, wrong, feedback(wrong, correct=True), feedback(wrong, correct=False, caller="hana")]
        ),
        ENCODER,
    )
    assert (found.strangers, found.callers) == (100, 21)
    assert found.before[0].fnir > 0


@pytest.mark.resemblyzer
def test_the_command_writes_the_calibration(
    log_of: Callable[[list[Event]], AuditFile],
    run: Callable[..., tuple[int, str, str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    code, _, err = run("calibrate", "--from-audit")
    assert code == 2
    assert "VOICE_AUDIT" in err
    monkeypatch.setenv("VOICE_AUDIT", "audit.jsonl")
    log_of(calls(300, 100, accepted=1.0, rejected=0.5))
    code, out, err = run("calibrate", "--from-audit")
    assert (code, err) == (0, "")
    assert "400 answers in the audit log" in out
    assert json.loads((tmp_path / "calibration.json").read_text())["about"]["source"] == "audit"
    assert json.loads(run("calibrate", "--from-audit", "--json")[1])["answers"] == 400
    assert run("calibrate", "--from-audit", "folder")[0] == 2
    assert run("calibrate")[0] == 2
