"""The audit log: who did what to which caller, with which result, in lines that are chained."""

from __future__ import annotations

from voiceprint.privacy.audit.auditor import AuditLog, audit_log, auditor_of
from voiceprint.privacy.audit.chain import ChainReport, Fault, Head, Line, verify_lines
from voiceprint.privacy.audit.event import ACTIONS, Event
from voiceprint.privacy.audit.query import event_filter

__all__ = [
    "ACTIONS",
    "AuditLog",
    "ChainReport",
    "Event",
    "Fault",
    "Head",
    "Line",
    "audit_log",
    "auditor_of",
    "event_filter",
    "verify_lines",
]
