"""`Auditor`: turns operations of a store into events, for its audit log and for callbacks."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from voiceprint import _fork
from voiceprint._audited import current_actor
from voiceprint._files import RefusedFileError, check_apart, expanded
from voiceprint.errors import AuditError, ConfigurationError, InvalidArgumentError
from voiceprint.privacy.audit.event import LONGEST_TEXT, Event, new_event_id
from voiceprint.privacy.audit.files import AuditFile
from voiceprint.privacy.audit.table import AuditTable
from voiceprint.privacy.audit.writer import AuditWriter
from voiceprint.validation import now, shown

if TYPE_CHECKING:
    from voiceprint.config import VoiceFingerprintConfig
    from voiceprint.storage import Storage

__all__ = ["AuditLog", "Auditor", "audit_log", "auditor_of"]

logger = logging.getLogger(__name__)

AuditLog = AuditFile | AuditTable
"""An audit log, to read."""

Callback = Callable[[Event], None]

IN_STORE: Final = "store"
"""The value of `VOICE_AUDIT` for the table of an SQL store."""


class _Settings(NamedTuple):
    place: str
    fsync: bool
    wait: bool
    rotate_mb: int


_writers: dict[_Settings, AuditWriter] = {}  # of this process, so that all recognizers share a thread
_lock = threading.Lock()


def _renew_lock() -> None:
    global _lock
    _lock = threading.Lock()


_fork.register(_fork.Step.STORE, in_child=_renew_lock)


class Auditor:
    """The recorder of one store: a writer of its audit log, or None, and callbacks."""

    def __init__(self) -> None:
        self.writer: AuditWriter | None = None
        self._callbacks: tuple[Callback, ...] = ()

    @property
    def is_active(self) -> bool:
        """True where a log or a callback receives the events."""
        return self.writer is not None or bool(self._callbacks)

    def add_callback(self, callback: Callback) -> Callable[[], None]:
        """Call `callback` with every event from now on; returns a function that ends this."""
        if not callable(callback):
            raise InvalidArgumentError(f"callback is {shown(callback)}: give a function of an event.")
        added = (callback,)  # an object of its own, so that the same function may be added twice
        with _lock:
            self._callbacks += added

        def remove() -> None:
            with _lock:
                kept = [*self._callbacks]
                if callback in kept:
                    kept.remove(callback)
                self._callbacks = tuple(kept)

        return remove

    def record(self, action: str, facts: dict[str, Any], *, failed: bool = False) -> str:
        """Record an event, and return its id.

        Raises `AuditError` where the log has to be written before the answer, and cannot be; but not for an
        operation that `failed` itself.
        """
        actor = current_actor()
        event = Event(
            new_event_id(),
            now(),
            action,
            actor=actor.name if isinstance(actor.name, str) else None,
            correlation_id=actor.correlation_id,
            **{name: _plain(value) for name, value in facts.items() if value is not None},
        )
        for callback in self._callbacks:
            try:
                callback(event)
            except Exception as error:  # noqa: BLE001 - of the application; it must not cost the answer
                # The message may hold anything.
                name = getattr(callback, "__qualname__", type(callback).__name__)
                logger.warning("The event callback %s failed: %s", name, type(error).__name__)
        if self.writer is not None:
            try:
                self.writer.put(event)
            except AuditError as error:
                if not failed:
                    raise
                logger.error("%s", error)  # noqa: TRY400 - beside the error of the operation
        return event.event_id


def _plain(value: Any) -> Any:
    """A fact as JSON can hold it: numpy's numbers as Python's, texts in Unicode and of limited length."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()[:LONGEST_TEXT]
    if isinstance(value, tuple | list):
        return tuple(_plain(item) for item in value)
    if isinstance(value, bool | int | float):
        return value
    return value.item()


def auditor_of(storage: Storage) -> Auditor:
    """The auditor of a store, made at the first call."""
    with _lock:
        if not isinstance(storage.auditor, Auditor):
            storage.auditor = Auditor()
        return storage.auditor


def audit_log(storage: Storage, config: VoiceFingerprintConfig) -> AuditLog | None:
    """The audit log of the settings, to read or append to; None where none is set.

    Raises `ConfigurationError`.
    """
    if config.audit is None:
        return None
    if config.audit == IN_STORE:
        table = storage.line_table()
        if table is None:
            raise ConfigurationError(
                f"VOICE_AUDIT is 'store', and {storage.location} has no table for it: give the path of a "
                "file, or use SQLite or PostgreSQL."
            )
        return AuditTable(table)
    try:
        path = expanded(config.audit).absolute()
        check_apart(path, storage.files())
    except (RefusedFileError, OSError) as error:
        raise ConfigurationError(f"VOICE_AUDIT is {config.audit!r}: {error}") from error
    return AuditFile(path, fsync=config.audit_fsync, rotate_bytes=config.audit_rotate_mb << 20)


def attach(storage: Storage, config: VoiceFingerprintConfig) -> None:
    """Write the events of a store to the audit log of the settings from now on, if one is set."""
    log = audit_log(storage, config)
    if log is None:
        return
    settings = _Settings(log.place, config.audit_fsync, config.audit_wait, config.audit_rotate_mb)
    with _lock:
        writer = _writers.get(settings)
        if writer is None:
            writer = AuditWriter(log.append, log.place, wait=config.audit_wait, reset=log.reset)
            _writers[settings] = writer
    auditor_of(storage).writer = writer


def flush(storage: Storage) -> None:
    """Wait until the events of a store are written; logs an error where they cannot be."""
    auditor = storage.auditor
    if isinstance(auditor, Auditor) and auditor.writer is not None and not auditor.writer.flush():
        logger.error("%d events wait for the audit log %s.", auditor.writer.unwritten, auditor.writer.place)
