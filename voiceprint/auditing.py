"""`Auditing`: the audit log of a recognizer."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from voiceprint._audited import acting_as
from voiceprint.errors import ConfigurationError, InvalidArgumentError
from voiceprint.privacy.audit.auditor import audit_log, auditor_of, flush
from voiceprint.privacy.audit.event import check_event_id, check_text
from voiceprint.validation import check_caller_id, shown

if TYPE_CHECKING:
    from voiceprint.config import VoiceFingerprintConfig
    from voiceprint.privacy.audit import AuditLog, Event
    from voiceprint.storage import Storage


class Auditing:
    """The methods of a recognizer for evidence: actors, events, feedback. docs/audit.md explains them."""

    storage: Storage
    config: VoiceFingerprintConfig

    def acting_as(self, actor: str, *, correlation_id: str | None = None) -> AbstractContextManager[None]:
        """Name the actor of all operations in a `with` block, in this thread or task and those it starts.

        actor: a person or program, such as "agent-17". correlation_id: links the events to another system,
        such as the id of a call. Both 1 to 512 characters. Without a correlation id, that of the surrounding
        block stays.
        """
        check_text(actor, "actor")
        if correlation_id is not None:
            check_text(correlation_id, "correlation_id")
        return acting_as(actor, correlation_id)

    def on_event(self, callback: Callable[[Event], None]) -> Callable[[], None]:
        """Call `callback` with the `Event` of every operation on this store object; returns a function that
        ends this.

        Works without an audit log too. The callback runs in the thread of the operation, which waits for it.
        Its exceptions are logged by their class, and change no answer.
        """
        return auditor_of(self.storage).add_callback(callback)

    def feedback(self, event_id: str, *, correct: bool, caller_id: str | None = None) -> str:
        """Record whether an answer was right; returns the id of this event.

        event_id: of the answer. correct: whether the accepted caller was the one who spoke, or whether the
        answer was rightly nobody. caller_id: the caller who spoke, where the answer was another or nobody.

        `voiceprint calibrate --from-audit` uses it. Raises `InvalidArgumentError`, and `ConfigurationError`
        where neither an audit log nor a callback takes it.
        """
        check_event_id(event_id)
        if not isinstance(correct, bool):
            raise InvalidArgumentError(f"correct is {shown(correct)}: True or False is allowed.")
        auditor = auditor_of(self.storage)
        if not auditor.is_active:
            raise ConfigurationError("There is no audit log for the feedback: set VOICE_AUDIT.")
        caller = None if caller_id is None else check_caller_id(caller_id)
        return auditor.record("feedback", {"about": event_id, "correct": correct, "caller": caller})

    def audit_log(self) -> AuditLog | None:
        """The audit log of the settings, to read, with all events so far; None without one."""
        flush(self.storage)
        return audit_log(self.storage, self.config)
